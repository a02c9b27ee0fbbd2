import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.data.processors import BadInput
from skillweave.data.processors.truncation import FORMATS, check_complete

HEADS = [
    b"RIFF", b"FORM", b"RF64    WAVEds64", b"riff\x2e\x91\xcf\x11", b".snd", b"caff\0\1\0\0",
    b"NIST_1A\n   1024\nsample_count -i ", b"\0\0\0\x10ftyp", b"\x1a\x45\xdf\xa3", b"OggS",
    b"wvpk", b"GIF89a", b"FLV\x01", bytes.fromhex("3026b2758e66cf11"), b"\0\0\1\xba", b"ID3\4\0\0",
    b"\xff\xfb\x90\0", b"G" + (bytes(187) + b"G") * 3, bytes(4) + b"G" + (bytes(191) + b"G") * 3,
]  # fmt: skip


def test_every_format_has_a_head_here():
    for magic in FORMATS:
        assert any(magic.match(head + bytes(400)) for head in HEADS), magic.pattern


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(HEADS), st.binary(max_size=600), st.integers(0, 3))
def test_damaged_files_are_passed_on_or_bad_input(head, rest, repeats):
    data = head + rest * (repeats + 1)
    file = io.BytesIO(data)
    try:
        check_complete(file, len(data))
    except BadInput as error:
        assert "truncated" in str(error)
    else:
        assert file.tell() == 0


@pytest.mark.parametrize("offset", [0, 50])
def test_a_file_of_empty_parts_is_not_followed_to_its_end(offset):
    # an element of one byte of name and no content, a million times
    data = b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * 1_000_000 + b"\xec\x88"[:offset]
    check_complete(io.BytesIO(data), len(data))


@pytest.mark.parametrize(
    ("coding", "missing", "refused"),
    [
        ("pcm", 0, False),
        ("pcm", 1, True),
        ("ulaw", 0, False),
        ("pcm,embedded-shorten-v2", 1, False),
    ],
)
def test_a_sphere_states_its_samples(coding, missing, refused):
    width = 1 if coding == "ulaw" else 2
    header = (
        f"NIST_1A\n   1024\nsample_count -i 100\nchannel_count -i 2\nsample_n_bytes -i {width}\n"
        f"sample_coding -s{len(coding)} {coding}\nend_head\n"
    )
    data = header.encode().ljust(1024) + bytes(100 * 2 * width - missing)
    if refused:
        with pytest.raises(BadInput, match="1423 bytes of at least 1424"):
            check_complete(io.BytesIO(data), len(data))
    else:
        check_complete(io.BytesIO(data), len(data))


@pytest.mark.parametrize(
    "head",
    [
        b"RIFF" + b"\xff" * 4,
        b"RF64" + b"\xff" * 4 + b"WAVEds64\x1c\0\0\0" + b"\xff" * 8,
        b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0" + b"\xff" * 8,
        b".snd\0\0\0\x18" + b"\xff" * 4,
        b"caff\0\1\0\0data" + b"\xff" * 8,
    ],
)
def test_a_length_that_the_writer_did_not_know_is_none(head):
    data = head + bytes(1000)
    check_complete(io.BytesIO(data), len(data))

import json
import tarfile

import pytest
from tar_files import sample, write

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source, open_table

ALL = (1.0, 0.0, 0.0)


def shards(folder, count=3, each=4):
    for s in range(count):
        members = {}
        for i in range(s * each, (s + 1) * each):
            members |= sample(f"d/{i:03}", i, size=700 * (i + 1))
        write(folder / f"{s:03}.tar", members)
    return str(folder / f"{{000..{count - 1:03}}}.tar")


def test_shards_agree_with_the_webdataset_library(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path = shards(tmp_path)
    source = open_source(DataConfig(path=path, fractions=ALL), "train")
    expected = list(webdataset.WebDataset(path, shardshuffle=False, empty_check=False))
    assert len(source) == len(expected) == 12
    for i in (11, 0, 5):  # any order
        row, other = source[i], expected[i]
        assert row["key"] == f"{i // 4:03}.tar:{other['__key__']}"
        assert (
            row["image"]["bytes"] == other["jpg"] and row["text"] == other["txt"].decode().strip()
        )
        assert {"group": row["group"], "n": row["n"]} == json.loads(other["json"])
    assert source.column("n") == list(range(12)) and not source.skipped


def test_columns_go_by_either_name_and_splits_by_sample_name(tmp_path):
    write(
        tmp_path / "a.tar",
        {"1.seg.png": b"s", "1.png": b"p", "1.cls": "3", "1.flac": b"f", "1.npy": b"n"},
    )
    table = open_table(str(tmp_path / "a.tar"))
    assert table.columns == ["seg.png", "image", "label", "sound", "npy"]
    assert table.media == {"seg.png", "image", "sound", "npy"}
    data = DataConfig(
        path=str(tmp_path / "a.tar"), columns={"image": "png", "label": "cls"}, fractions=ALL
    )
    row = open_source(data, "train", fields=["image", "label"])[0]
    assert row == {"key": "a.tar:1", "image": {"bytes": b"p", "path": "1.png"}, "label": "3"}
    assert table.stable_id(0) == "1"


def test_every_truncation_gives_whole_samples_and_says_so(tmp_path):
    shards(tmp_path, count=1, each=3)
    data = (tmp_path / "000.tar").read_bytes()
    with tarfile.open(tmp_path / "000.tar") as tar:
        members = tar.getmembers()
    ends = [m.offset_data + m.size for m in members if m.name.endswith("json")]
    second = next(m.offset_data for m in members if m.name == "d/001.jpg")
    for cut in sorted({1, 100, 511, 512, 513, *range(600, ends[-1], 499), *ends}):
        file = tmp_path / "cut.tar"
        file.write_bytes(data[:cut])
        table = open_table(str(file))
        whole = sum(end <= cut for end in ends)
        # before the second sample is seen, nothing tells that the first has no more members
        assert len(table) == (0 if cut < second else whole), cut
        assert [key for key, _ in table.skipped] == ["cut.tar"]
        for i in range(len(table)):
            row = table.read(i, ["image", "text", "n"])
            assert len(row["image"]["bytes"]) == 700 * (i + 1) and row["n"] == i


def test_damage_compression_and_bad_members_are_listed(tmp_path):
    write(
        tmp_path / "a.tar",
        {
            **sample("1", 1),
            "2.jpg": b"",
            "2.json": "{",
            "3.jpg": b"",
            "3.txt": b"\xff",
            **sample("4", 4),
        },
    )
    table = open_table(str(tmp_path / "a.tar"))
    assert [table.stable_id(i) for i in range(len(table))] == ["1", "4"]
    assert [key for key, _ in table.skipped] == ["a.tar:2", "a.tar:3"]
    broken = bytearray((tmp_path / "a.tar").read_bytes())
    # checksum of the seventh block, the header of 2.jpg
    broken[6 * 512 + 148 : 6 * 512 + 156] = b"garbage!"
    (tmp_path / "b.tar").write_bytes(broken)
    assert [key for key, _ in open_table(str(tmp_path / "b.tar")).skipped] == ["b.tar"]
    with tarfile.open(tmp_path / "c.tar", "w:gz"):
        pass
    with pytest.raises(ConfigError, match="compressed"):
        open_source(DataConfig(path=str(tmp_path / "c.tar")), "train")


def test_a_group_in_json_keeps_samples_together(tmp_path):
    path = shards(tmp_path)
    groups = {}
    for split in ("train", "validation", "test"):
        try:
            source = open_source(
                DataConfig(path=path, group="group", fractions=(0.4, 0.3, 0.3)), split
            )
        except ConfigError:
            continue
        for group in source.column("group"):
            groups.setdefault(group, set()).add(split)
    assert {group: len(splits) for group, splits in groups.items()} == {"g0": 1, "g1": 1}


def test_metadata_that_name_a_member_are_metadata(tmp_path):
    about = {
        f"{i}.json": json.dumps({"id": i, "image": f"{i}.png", "text": "no"}) for i in range(3)
    }
    members = {"0.png": b"p", "0.txt": "a", **about, "1.txt": "b", "2.png": b"q"}
    write(tmp_path / "a.tar", dict(sorted(members.items())))
    table = open_table(str(tmp_path / "a.tar"))
    assert set(table.columns) == {"image", "text", "id"} and table.media == {"image"}
    rows = list(open_source(DataConfig(path=str(tmp_path / "a.tar"), fractions=ALL), "train"))
    pictures = [row["image"] and row["image"]["bytes"] for row in rows]
    assert pictures == [b"p", None, b"q"]  # the second sample has none
    assert [row["text"] for row in rows] == ["a", "b", "no"] and [row["id"] for row in rows] == [
        0,
        1,
        2,
    ]


def with_size(header, size):
    """A header with another size, in base 256 (GNU), and the checksum that it then has."""
    number = (b"\x80" if size >= 0 else b"\xff") + size.to_bytes(11, "big", signed=True)
    changed = bytearray(header[:124] + number + header[136:])
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [-512, -1024, -(10**6), 2**60])
def test_a_header_with_an_impossible_size_ends_the_shard(tmp_path, kind, size):
    def header(name, kind):
        info = tarfile.TarInfo(name)
        info.size, info.type = 3, kind
        return info.tobuf()

    names = [f"{i}.{extension}" for i in range(3) for extension in ("jpg", "txt")]
    whole = [header(name, tarfile.REGTYPE) + b"abc".ljust(512, b"\0") for name in names]
    damaged = with_size(header("3.jpg", kind), size) + bytes(512)
    file = tmp_path / "a.tar"
    file.write_bytes(b"".join(whole) + damaged + bytes(1024))
    table = open_table(str(file))
    assert len(table) >= 2 and len(table.skipped) == 1


def test_headers_about_headers_without_end_are_damage(tmp_path):
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 10
    (tmp_path / "a.tar").write_bytes(
        (info.tobuf() + b"name".ljust(512, b"\0")) * 3_000 + bytes(1024)
    )
    table = open_table(str(tmp_path / "a.tar"))
    assert len(table) == 0 and "recursion" in table.skipped[0][1]

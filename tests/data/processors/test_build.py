import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.batch import Modality
from skillweave.config.base import ConfigError
from skillweave.config.data import AugmentConfig
from skillweave.config.streams import (
    CodeStream,
    ImageStream,
    Streams,
    TextStream,
    TrainedTokenizerConfig,
    VideoStream,
    WaveformStream,
)
from skillweave.data.processors import (
    BadInput,
    build_processors,
    tokenizer_asset,
    train_tokenizer,
    truncation,
)
from skillweave.data.processors.truncation import check_complete
from skillweave.model.config import ModelConfig

ALL = Streams(
    text=TextStream(),
    code=CodeStream(),
    image=ImageStream(size=32),
    sound=WaveformStream(),
    video=VideoStream(size=32, tubelet=(3, 16, 16)),
)
TOKENIZER = (
    train_tokenizer(["x = 1", "一个笑脸"] * 2, TrainedTokenizerConfig(), 100).to_str().encode()
)
ASSETS = {tokenizer_asset(Modality.TEXT): TOKENIZER}
PROCESSORS = build_processors(ModelConfig(streams=ALL, shared=["word"]), ASSETS)


def test_each_stream_gets_its_processor():
    assert set(PROCESSORS) == set(Modality)
    assert PROCESSORS[Modality.IMAGE](np.zeros((8, 8, 3), np.uint8)).length == 5
    assert PROCESSORS[Modality.SOUND](np.ones(16_000)).length == 49
    assert PROCESSORS[Modality.VIDEO](np.zeros((1, 8, 8, 3), np.uint8)).length == 9
    assert PROCESSORS[Modality.TEXT]("一个").data.tolist()[0] == 2
    assert PROCESSORS[Modality.CODE]("一个").data.tolist()[0] == 5


def test_only_streams_that_exist_get_one():
    assert list(build_processors(ModelConfig(streams=Streams(image=ImageStream())), {})) == [
        Modality.IMAGE
    ]


def test_an_absent_tokenizer_is_named():
    with pytest.raises(ConfigError, match=r"'code'.*code_tokenizer\.json"):
        build_processors(ModelConfig(streams=ALL), ASSETS)


def test_augmentation_reaches_the_processors():
    config = ModelConfig(streams=Streams(text=TextStream()))
    text = build_processors(config, ASSETS, augment=AugmentConfig(word_dropout=0.99))[Modality.TEXT]
    assert (text("一个笑脸" * 50, np.random.default_rng(0)).data == 4).float().mean() > 0.9


def test_building_for_text_loads_no_media_library():
    script = (
        "import sys\n"
        "import skillweave.data.processors\n"
        "print([m for m in ('torch', 'av', 'PIL', 'soundfile', 'sklearn') if m in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        [
            b"",
            b"RIFF\x40\0\0\0WAVEfmt ",
            b"RIFF\x40\0\0\0WEBPVP8 ",
            b"OggS\0\x02",
            b"fLaC\0\0\0\x22",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe0",
            b"GIF89a",
            b"\0\0\0\x20ftypisom",
            b"\x1a\x45\xdf\xa3",
            b"ID3\x04\0\0",
            b"\xff\xfb\x90\x64",
            b"FORM\0\0\0\x40AIFF",
            b"II*\0",
            b"BM",
            b".snd",
            b"caff\0\x01",
            b"riff\x2e\x91\xcf\x11",
            b"RF64\xff\xff\xff\xffWAVEds64",
            b"FLV\x01\x05",
            b"\x47\x40\0\x10",
        ]
    ),
    st.binary(max_size=300),
)
def test_any_bytes_decode_or_are_bad_input(magic, rest):
    for processor in PROCESSORS.values():
        try:
            features = processor(magic + rest)
        except BadInput as error:
            assert str(error) and " at 0x" not in str(error)
        else:
            assert features.length > 0 and features.data.isfinite().all()


class Endless:
    """A file of empty ISO boxes that counts how often it is read."""

    def __init__(self):
        self.reads = 0

    def read(self, count):
        self.reads += 1
        return b"\0\0\0\x08ftyp" + b"\0\0\0\x08free"[: count - 8]

    def seek(self, offset):
        return offset


def test_a_file_of_countless_boxes_is_not_walked_to_its_end(monkeypatch):
    monkeypatch.setattr(truncation, "MAX_PARTS", 50)
    file = Endless()
    check_complete(file, 2**40)
    assert file.reads < 100

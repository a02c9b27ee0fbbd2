"""What users hold in their hands: files, bytes, pictures, arrays and tensors are read alike, and
what a single input would be mistaken for is told. What comes back is shown in notebooks."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import skillweave as sw
from skillweave.config.streams import ImageStream, VideoStream, WaveformStream
from skillweave.data.processors import BadInput
from skillweave.data.processors.image import ImageProcessor
from skillweave.data.processors.sound import SoundProcessor
from skillweave.data.processors.video import VideoProcessor

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
GREY = PIXELS[:, :, :1]
READ_IMAGE = ImageProcessor(ImageStream(size=16, patch=8))


@pytest.fixture(scope="module")
def tiny() -> sw.Predictor:
    return sw.Predictor("skillweave/tiny")


def test_pictures(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(file)
    wanted = READ_IMAGE(str(file)).data
    channels_first = torch.from_numpy(PIXELS).permute(2, 0, 1)
    opaque = np.dstack([PIXELS, np.full((32, 40), 255, np.uint8)])
    for value in (
        file,
        file.read_bytes(),
        Image.fromarray(PIXELS),
        PIXELS,
        PIXELS / 255,
        opaque,
        torch.from_numpy(PIXELS),
        channels_first,
        channels_first / 255,
        channels_first.to(torch.float64) / 255,
    ):
        assert torch.equal(READ_IMAGE(value).data, wanted)
    grey = READ_IMAGE(Image.fromarray(GREY[:, :, 0])).data
    for value in (GREY, GREY[:, :, 0], torch.from_numpy(GREY).permute(2, 0, 1)):
        assert torch.equal(READ_IMAGE(value).data, grey)
    for bad, told in ((PIXELS * 1.0, "not from 0 to 1"), (PIXELS.astype(np.int64), "int64")):
        with pytest.raises(BadInput, match=told):
            READ_IMAGE(bad)


def test_recordings(tmp_path: Path) -> None:
    wave = np.random.default_rng(1).uniform(-0.5, 0.5, 8000).astype(np.float32)
    file = tmp_path / "a.wav"
    soundfile.write(file, wave, 16_000, subtype="FLOAT")
    read = SoundProcessor(WaveformStream())
    wanted = read(file).data
    stereo = torch.from_numpy(np.stack([wave, wave]))
    for value in (wave, torch.from_numpy(wave), stereo, stereo[:1]):
        assert torch.allclose(read(value).data, wanted, atol=1e-6)
    soundfile.write(file, wave, 8_000, subtype="FLOAT")
    assert torch.equal(read({"array": wave, "sampling_rate": 8_000}).data, read(file).data)


def test_clips() -> None:
    frames = np.stack([PIXELS, PIXELS[::-1]] * 3)
    read = VideoProcessor(VideoStream(size=16, frames=3, tubelet=(1, 8, 8)))
    wanted = read(frames).data
    assert torch.equal(read(torch.from_numpy(frames)).data, wanted)
    assert torch.equal(read(torch.from_numpy(frames).permute(0, 3, 1, 2)).data, wanted)


def test_a_single_input_is_told(tiny: sw.Predictor) -> None:
    for name, value in (("image", PIXELS), ("image", Image.fromarray(PIXELS)), ("text", "a cat")):
        with pytest.raises(sw.ConfigError, match=f"{name}= is a list"):
            tiny.encode("text_to_image", **{name: value})
    with pytest.raises(sw.ConfigError, match="inputs is a list"):
        sw.predict(tiny, "text_classification", "a cat")
    with pytest.raises(sw.ConfigError, match="modality="):
        sw.Index.build(tiny, [PIXELS])


def test_broken_arrays_are_named_by_their_number(tiny: sw.Predictor) -> None:
    with pytest.raises(BadInput, match=r"image\[1\]: .* not from 0 to 1"):
        tiny.encode("text_to_image", image=[PIXELS, 2.0 * PIXELS])


class Cells(HTMLParser):
    """The rows of all tables, with pictures as "<img>"."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "img":
            assert (dict(attrs)["src"] or "").startswith("data:image/")
            self.rows[-1][-1] += "<img>"

    def handle_data(self, data: str) -> None:
        self.rows[-1][-1] += data


def test_an_index_of_a_list_shows_what_it_finds(tiny: sw.Predictor, tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    Image.new("RGB", (32, 32), "red").save(file)
    index = sw.Index.build(tiny, [PIXELS, file, torch.from_numpy(GREY)], modality="image")
    found = index.search(image=Image.new("RGB", (32, 32), "red"), k=2)
    assert found[0].entry.key == "1" and found[0].score == pytest.approx(1, abs=1e-5)
    header, first, _ = Cells(found._repr_html_()).rows
    assert header == ["score", "image", "key"]
    assert first == [f"{found[0].score:.3f}", "<img>", "1"]
    assert repr(found).splitlines()[0] == f"{found[0].score:.3f}  1"
    texts = sw.Index.build(tiny, ["a <b> heart", "a cat"], modality="text").search(text="a cat")
    assert Cells(texts._repr_html_()).rows[1] == [f"{texts[0].score:.3f}", "a cat", "1", "a cat"]
    assert "a <b> heart" in [row[1] for row in Cells(texts._repr_html_()).rows]


def test_what_is_added_is_numbered_on_and_shown_as_itself(
    tiny: sw.Predictor, tmp_path: Path
) -> None:
    colours = ("red", "blue")
    for folder, colour in zip(("one", "two"), colours, strict=True):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 32), colour).save(tmp_path / folder / "a.png")
    index = sw.Index.build(tiny, tmp_path / "one", modality="image")
    assert index.add([PIXELS, GREY]) == []
    assert sorted(entry.key for entry in index.entries) == ["0", "1", "a.png"]
    index.add([np.flipud(PIXELS)])
    assert sorted(entry.key for entry in index.entries) == ["0", "1", "2", "a.png"]
    index.add(tmp_path / "two")  # replaces what has its key
    (best,) = found = index.search(image=Image.new("RGB", (32, 32), "blue"), k=1)
    assert best.entry.key == "a.png" and best.score == pytest.approx(1, abs=1e-5)
    assert found.value(best.entry)["path"] == str(tmp_path / "two" / "a.png")
    (added,) = found = index.search(image=PIXELS, k=1)
    assert added.entry.key == "0"
    assert Cells(found._repr_html_()).rows[1][1] == "–"  # its pixels are not kept


def test_answers_are_shown_as_a_table(tiny: sw.Predictor) -> None:
    answers = sw.predict(tiny, "text_classification", ["很好", None])
    header, good, broken = Cells(answers._repr_html_()).rows
    assert header == ["class", "probability", "error"]
    assert good == [answers[0]["class"], f"{answers[0]['probability']:.3f}", ""]
    assert broken == ["", "", "no text"]

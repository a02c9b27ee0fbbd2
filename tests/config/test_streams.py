"""What streams say of themselves: lengths, grids, skills."""

import pytest

from skillweave.batch import Modality
from skillweave.config.streams import ImageStream, Streams, VideoStream, WaveformStream
from skillweave.model.config import ModelConfig


def test_lengths_at_the_papers_sizes() -> None:
    assert ImageStream().max_length == 14 * 14 + 1
    assert VideoStream().grid == (2, 14, 14) and VideoStream().max_length == 2 * 14 * 14 + 1
    assert (
        ImageStream(distilled=True).max_length == 14 * 14 + 2
        and VideoStream(cls_token=False).max_length == 2 * 14 * 14
    )
    # wav2vec's windows reach a little over their 20 ms
    assert WaveformStream().positions(20 * 16_000) == 999


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_less_than_a_window_is_no_frame(samples: int) -> None:
    assert WaveformStream().positions(samples) == 0
    assert WaveformStream().positions(400) == 1


def test_streams_present_keep_the_order_of_modalities() -> None:
    streams = Streams.parse({"code": {}, "text": {}})
    assert list(streams.present()) == [Modality.TEXT, Modality.CODE]


def test_code_keeps_case_by_default() -> None:
    streams = Streams.parse({"code": {}, "text": {}})
    assert streams.text.tokenizer.lowercase and not streams.code.tokenizer.lowercase


def test_skills_by_table() -> None:
    sparse = {"qkv": {"route": "skill", "skills": {"video": "vision", "image": "vision"}}}
    config = ModelConfig.parse(
        {"streams": {"text": {}, "image": {}, "video": {}}, "encoder": {"sparse": sparse}}
    )
    assert config.skills == {
        Modality.TEXT: "text",
        Modality.IMAGE: "vision",
        Modality.VIDEO: "vision",
    }


def test_targets_are_called_by_their_kind_unless_told_otherwise() -> None:
    config = ModelConfig.parse(
        {"streams": {"text": {}}, "targets": {"mlm": None, "topic": {"kind": "classification"}}}
    )
    assert {name: t.kind for name, t in config.targets.items()} == {
        "mlm": "mlm",
        "topic": "classification",
    }

"""Which towers are stock models, and the reason where one is not."""

from typing import Any

import pytest
import torch
from tiny import TASKS, tiny_config

from skillweave.model import Model
from skillweave.towers.stock import misfit, stock_class


def tower(task: str, norm_position: str = "pre", encoder: dict[str, Any] | None = None, **stream: Any) -> Model:
    """A dense model of a one-pass task."""
    encoder = {"norm_position": norm_position, "sparse": {}, **(encoder or {})}
    config = tiny_config(encoder=encoder, tasks={task: {**TASKS_OF[task], "targets": {}}})
    config = config.restricted(task)
    streams = {m.value: s.model_copy(update=stream) for m, s in config.streams.present().items()}
    with torch.device("meta"):
        return Model(config.model_copy(update={"streams": config.streams.model_copy(update=streams)}))


def one(modality: str, attention: str = "full") -> dict[str, Any]:
    return {"spans": [{"modality": modality, "attention": attention}], "targets": {}}


TASKS_OF = {m: one(m) for m in ("text", "image", "sound", "video", "code")} | TASKS | {"writing": one("text", "causal")}


@pytest.mark.parametrize(
    ("task", "norm_position", "expected"),
    [
        ("text", "post", "BertModel"),
        ("code", "post", "BertModel"),
        ("text", "pre", "RobertaPreLayerNormModel"),
        ("image", "pre", "ViTModel"),
        ("video", "pre", "VivitModel"),
    ],
)
def test_stock_models(task: str, norm_position: str, expected: str) -> None:
    assert misfit(tower(task, norm_position)) == "" and stock_class(tower(task, norm_position)) == expected


@pytest.mark.parametrize(
    ("task", "norm_position", "stream", "why"),
    [
        ("image", "post", {}, "ViTModel normalises before attention and feed-forward, this tower after them"),
        ("video", "post", {}, "VivitModel normalises before"),
        ("sound", "pre", {}, "Wav2Vec2Model adds positions by a convolution"),
        ("writing", "pre", {}, "its attention is causal"),
        ("masked_code", "pre", {}, "the pass joins 2 spans"),
        ("text", "post", {"norm": False}, "BertModel has a layer norm over its embeddings, this tower has none"),
        ("text", "pre", {"scaled": True}, "it has scaled as stock encoders do not"),
        ("image", "pre", {"distilled": True}, "it has distilled as"),
        ("text", "post", {"encoder": {"gated": True, "position": {"kind": "rope"}}}, "it has position, gated as stock encoders"),
        ("image", "pre", {"norm": True}, "ViTModel has no layer norm over its embeddings, this tower has one"),
    ],
)
def test_reasons(task: str, norm_position: str, stream: dict[str, Any], why: str) -> None:
    assert misfit(tower(task, norm_position, **stream)).startswith(why)

"""Which encoders are stock models, and the reason where one is not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TASKS, tiny_config

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.surgery.export import export_encoder
from skillweave.surgery.export.stock import difference_to_stock, stock_class


def encoder(task: str, norm_position: str = "pre", **stream: Any) -> Model:
    """A dense model of a one-pass task."""
    config = tiny_config(
        encoder={"norm_position": norm_position, "sparse": {}},
        tasks={task: {**TASKS_OF[task], "targets": {}}},
    )
    config = config.restricted(task)
    streams = {m.value: s.model_copy(update=stream) for m, s in config.streams.present().items()}
    with torch.device("meta"):
        return Model(
            config.model_copy(update={"streams": config.streams.model_copy(update=streams)})
        )


def one(modality: str, attention: str = "full") -> dict[str, Any]:
    return {"spans": [{"modality": modality, "attention": attention}], "targets": {}}


TASKS_OF = (
    {m: one(m) for m in ("text", "image", "sound", "video", "code")}
    | TASKS
    | {"writing": one("text", "causal")}
)


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
    assert (
        difference_to_stock(encoder(task, norm_position)) == ""
        and stock_class(encoder(task, norm_position)) == expected
    )


@pytest.mark.parametrize(
    ("task", "norm_position", "stream", "why"),
    [
        (
            "image",
            "post",
            {},
            "ViTModel normalises before attention and feed-forward, this encoder after them",
        ),
        ("video", "post", {}, "VivitModel normalises before"),
        ("sound", "pre", {}, "Wav2Vec2Model adds positions by a convolution"),
        ("writing", "pre", {}, "its attention is causal"),
        ("masked_code", "pre", {}, "the pass joins 2 spans"),
        (
            "text",
            "post",
            {"norm": False},
            "BertModel has a layer norm over its embeddings, this encoder has none",
        ),
        (
            "text",
            "pre",
            {"scale_embedding": True},
            "stock encoders have nothing like its stream's scale_embedding",
        ),
        (
            "image",
            "pre",
            {"distilled": True},
            "stock encoders have nothing like its stream's distilled",
        ),
        (
            "image",
            "pre",
            {"norm": True},
            "ViTModel has no layer norm over its embeddings, this encoder has one",
        ),
    ],
)
def test_reasons(task: str, norm_position: str, stream: dict[str, Any], why: str) -> None:
    assert difference_to_stock(encoder(task, norm_position, **stream)).startswith(why)


ROTARY = {"position": {"kind": "rope"}, "gated": True, "heads": 2}


@pytest.mark.parametrize(
    ("encoder", "named"),
    [(ROTARY, "position, gated"), ({"name": "lstm"}, "name"), ({"name": "gated_cnn"}, "name")],
)
def test_an_encoder_that_no_stock_model_has(encoder: dict[str, Any], named: str) -> None:
    assert (
        difference_to_stock(alone(encoder))
        == f"stock encoders have nothing like its encoder's {named}"
    )


def test_a_gated_cnn_is_exported_as_a_graph_and_an_lstm_cannot_be(tmp_path: Path) -> None:
    for name in ("gated_cnn", "lstm"):
        model = Model(alone({"name": name}).config).eval()
        layout = model.config.tasks["text"].layout("text").with_lengths((6,))
        batch = Batch(layout, (torch.randint(9, (3, 6)),), torch.tensor([[6], [4], [2]]))
        (expected,) = model.hidden(batch)
        if name == "lstm":
            with pytest.raises(
                ConfigError, match="a graph cannot hold an encoder 'lstm'; use --no-export"
            ):
                export_encoder(model, batch, expected, tmp_path, name)
        else:
            assert (
                export_encoder(model, batch, expected, tmp_path, name)["largest_relative_error"]
                < 1e-5
            )


def alone(encoder: dict[str, Any]) -> Model:
    """A model of single texts, without weights."""
    data = {"width": 12, "streams": {"text": {"vocabulary": 9}}, "tasks": {"text": one("text")}}
    with torch.device("meta"):
        return Model(ModelConfig.parse({**data, "encoder": {"layers": 1, **encoder}}))

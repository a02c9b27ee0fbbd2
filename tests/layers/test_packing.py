"""Samples that share a row are what they are alone: outputs and gradients, whatever attention knows
of positions."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import labelled, random_examples, relative_error, task, tiny_config, tiny_model

from skillweave.batch import Batch, Example, Layout, Modality, Span
from skillweave.config import ConfigError
from skillweave.data.collate import collate, collate_packed, pack
from skillweave.layers.tokens import map_tokens
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolve

LENGTHS = [[5], [2], [9], [1], [7], [3], [3]]
ROOM = 12
ENCODERS: dict[str, dict[str, Any]] = {
    "learned positions": {},
    "rope": {"heads": 3, "position": {"kind": "rope"}},
    "t5_bias": {"position": {"kind": "t5_bias", "buckets": 8, "max_distance": 6}},
    "alibi": {"position": {"kind": "alibi"}},
    "window": {"window": 3},
    "global layers": {"window": 3, "global_layers": [1], "global_position": {"kind": "rope"}},
    "capped scores": {"attention_softcap": 0.5},
    "disentangled": {"position": {"kind": "disentangled", "buckets": 4, "max_distance": 6}},
    # With padding, the longest sample is as long as the texts of the first training. Rows are longer.
    "longrope": {
        "position": {
            "kind": "rope",
            "scaling": {
                "kind": "longrope",
                "original_length": 12,
                "short_factors": [1.0, 2.0],
                "long_factors": [3.0, 5.0],
            },
        }
    },
    "no biases": {"biases": [], "norm": "rms", "norm_position": "pre"},
}


def packed_and_alone(model: Model, name: str) -> tuple[list[Example], Batch, list[Batch]]:
    examples = labelled(
        name, random_examples(name, LENGTHS, model.config), np.random.default_rng(0)
    )
    layout = model.config.tasks[name].layout(name)
    batch = collate_packed(layout, examples, model.config.streams, 4, (), ROOM)
    order = [example for row in pack(examples, ROOM) for example in row]
    return order, batch, [collate(layout, [example], model.config.streams, 1) for example in order]


def per_sample(model: Model, batch: Batch) -> dict[int, torch.Tensor]:
    """The hidden states of each packed sample, in the order of rows."""
    hidden_NLD = model.hidden(batch)[0]
    found, number = {}, 0
    for row, lengths in enumerate(batch.lengths.tolist()):
        start = 0
        for span, length in zip(batch.layout.spans, lengths, strict=True):
            if length:
                found[number] = hidden_NLD[row, start : start + length]
                number += 1
            start += span.length
    return found


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
def test_packed_samples_are_those_alone(options: dict[str, Any], causal: bool) -> None:
    name = "masked_text"
    encoder = {"sparse": {}, **options}
    if "rope" in str(options):
        encoder["head_size"] = 4
    config = tiny_config(
        encoder=encoder, tasks={name: task("mlm", "text/causal" if causal else "text")}
    )
    model = tiny_model(config)
    order, batch, alone = packed_and_alone(model, name)
    assert batch.layout.packed and batch.lengths.shape[0] < len(order) == len(batch)
    found = per_sample(model, batch)
    for number, one in enumerate(alone):
        assert relative_error(found[number], model.hidden(one)[0][0]) < 1e-12
    model(batch).losses["mlm"].backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    counts = [int(one.logits_to_keep.sum()) for one in alone]
    losses = [
        model(one).losses["mlm"] * count / sum(counts)
        for one, count in zip(alone, counts, strict=True)
    ]
    torch.stack(losses).sum().backward()
    largest = max(float(grad.abs().max()) for grad in packed.values())
    for parameter, p in model.named_parameters():
        if p.grad is not None:
            assert (packed[parameter] - p.grad).abs().max() < 1e-10 * largest, parameter


def test_what_a_packed_sample_sees() -> None:
    layout = Layout(
        "t", (Span(Modality.TEXT, length=2), Span(Modality.TEXT, length=1)), packed=True
    )
    tokens = map_tokens(layout, 0, torch.tensor([[2, 1], [1, 0]]), torch.device("cpu"))
    assert tokens.mask is not None
    full, lone = tokens.mask[:, 0].tolist()
    assert full == [[True, True, False], [True, True, False], [False, False, True]]
    # padding sees itself
    assert lone == [[True, False, False], [True, True, False], [False, False, True]]


def test_first_fit_decreasing() -> None:
    examples = random_examples("masked_text", [[n] for n in (4, 8, 1, 4, 2, 1, 13)], tiny_config())
    assert [[one.spans[0].length for one in row] for row in pack(examples, 10)] == [
        [13],
        [8, 2],
        [4, 4, 1, 1],
    ]


def test_rows_hold_samples_of_one_kind() -> None:
    with pytest.raises(ValueError, match="packed samples must all have one span of the same kind"):
        Layout("t", (Span(Modality.TEXT), Span(Modality.IMAGE)), packed=True)


def test_a_context_would_mix_packed_samples() -> None:
    model = tiny_model(tiny_config(feed_forward={"route": "context", "experts": 3}))
    _, batch, _ = packed_and_alone(model, "masked_text")
    with pytest.raises(ValueError, match="leave out the task's `pack`"):
        model(batch)


def test_a_recipe_packs_only_masked_text(tmp_path: Any) -> None:
    (tmp_path / "rows.csv").write_text(
        "text,label\n" + "".join(f"word{i} other,{i % 2}\n" for i in range(40))
    )
    data = {"data": {"path": str(tmp_path / "rows.csv")}, "pack": 32}
    recipe = {"tasks": {"text_classification": data}, "training": {"steps": 1}}
    with pytest.raises(
        ConfigError, match="only samples of one span whose tokens are predicted share rows"
    ):
        resolve(RecipeConfig.parse({"model": {"streams": {"text": {}}}, **recipe}))


def test_an_encoder_that_would_read_across_samples_is_not_packed(tmp_path: Any) -> None:
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f"word{i} other\n" for i in range(40)))
    data = {"data": {"path": str(tmp_path / "rows.csv")}, "pack": 32, "target": "lm"}
    model = {"streams": {"text": {}}, "encoder": {"name": "lstm", "layers": 1}}
    recipe = {"tasks": {"language_modelling": data}, "training": {"steps": 1}}
    with pytest.raises(ConfigError, match="encoder 'lstm' would read on from one sample into"):
        resolve(RecipeConfig.parse({"model": {**model, "targets": {"lm": {}}}, **recipe}))

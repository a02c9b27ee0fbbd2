"""Experts that are chosen by looking at the data, in the shared encoder, in the decoder and in a
stream's own encoder: counted, listed, sliced, carved and upcycled alike."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import STREAMS, TARGETS, TASKS, VOCABULARY, relative_error, tiny_config, tiny_model

import skillweave as sw
from skillweave.analysis.experts import by_site, data_choices, uses_by_data, uses_by_layout
from skillweave.analysis.inspection import inspect_folder, inspect_model
from skillweave.config import ConfigError
from skillweave.evaluation.agreement import differences, made_batch
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.surgery.carve import carve
from skillweave.surgery.upcycle import copied, upcycle

WIDTH, HIDDEN, LAYERS = 12, 20, 2
SIZES = {
    "layers": LAYERS, "heads": 3, "feed_forward": HIDDEN, "dropout": 0, "attention_dropout": 0
}  # fmt: skip
TOKEN: dict[str, Any] = {
    "qkv": {"route": "token", "experts": 3, "active": 2},
    "feed_forward": {"route": "token", "experts": 4, "active": 2},
}
ENCODER, DECODER, IMAGE = "encoder", "decoder", "stream_encoders.image"
WHERE = {"decoder": [DECODER], "own": [IMAGE], "all": [ENCODER, IMAGE, DECODER]}
RUNS = {"classify": [ENCODER], "to_image": [ENCODER, IMAGE], "write": [ENCODER, DECODER]}
"""Task → the parts that run."""
ANSWER = {"modality": "text", "role": "target", "attention": "causal", "encoder_pass": 1}


def config_of(sparse: dict[str, dict[str, Any]]) -> ModelConfig:
    """`sparse`: the experts of each part."""

    def encoder(part: str) -> dict[str, Any]:
        return {**SIZES, "sparse": sparse.get(part, {})}

    tasks = {name: TASKS[name] for name in ("classify", "to_image")}
    tasks["write"] = {"spans": [{"modality": "text"}, ANSWER], "targets": {"lm": 1.0}}
    return tiny_config(
        streams={**STREAMS, "image": {**STREAMS["image"], "encoder": encoder(IMAGE)}},
        tasks=tasks,
        targets={**TARGETS, "lm": {}},
        encoder=encoder(ENCODER),
        decoder=encoder(DECODER),
        target_embedding={
            "max_length": 32, "vocabulary": VOCABULARY, "embedding": ["word", "position"]
        },
    )  # fmt: skip


def model_of(
    parts: list[str], dtype: torch.dtype = torch.float64, sparse: dict[str, Any] = TOKEN
) -> Model:
    torch.manual_seed(0)
    return tiny_model(config_of(dict.fromkeys(parts, sparse)), dtype)


def batch_of(model: Model, task: str):
    """In the precision of the model."""
    batch, dtype = made_batch(model, task), next(model.parameters()).dtype
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in batch.inputs)
    return replace(batch, inputs=inputs)


@pytest.fixture(params=WHERE)
def parts(request) -> list[str]:
    return WHERE[request.param]


def test_counted_by_hand(parts: list[str]) -> None:
    """A token uses two of the experts; the gate has a weight for each number and expert."""
    model, dense = model_of(parts), model_of([])
    qkv = WIDTH * 3 * WIDTH + 3 * WIDTH
    feed_forward = WIDTH * HIDDEN + HIDDEN + HIDDEN * WIDTH + WIDTH
    gates = (3 + 4) * WIDTH
    for task, running in RUNS.items():
        extra = LAYERS * (qkv + feed_forward + gates) * len(set(parts) & set(running))
        assert model.count_parameters(task) == dense.count_parameters(task) + extra
    every = LAYERS * (2 * qkv + 3 * feed_forward + gates) * len(parts)
    assert model.count_parameters() == dense.count_parameters() + every
    with torch.device("meta"):
        described = inspect_model(Model(model.config))
    for task, about in described["tasks"].items():
        assert about["activated_parameters"] == model.count_parameters(task)
    assert {ENCODER, DECODER, IMAGE} <= set(described["components"])


def test_usage_adds_up(parts: list[str]) -> None:
    model = model_of(parts)
    for task in RUNS:
        batch = batch_of(model, task)
        load = model.assignments(batch)
        found = {(*choice, condition) for choice, condition in load}
        assert found == {
            (part, layer, site, condition)
            for part, conditions in model.active_parts(model.conditions(task)).items()
            if part in parts
            for layer in range(LAYERS)
            for site in TOKEN
            for condition in conditions
        }
        for (_, condition), load_E in load.items():
            assert load_E.sum() == 2 * batch.condition_tokens[condition]
        uses = uses_by_data(model, load)
        assert len(uses) == len(load)
        for use in uses:
            assert (use.route, use.task) == ("token", task)
            assert sum(use.shares.values()) == pytest.approx(1, abs=1e-5)
        tables = {where for where, _, _ in by_site(uses)}
        assert tables == {
            f"{part}.{site}" for part in parts if part in RUNS[task] for site in TOKEN
        }


def test_shares_are_those_of_a_plain_count() -> None:
    """Of the decoder's first choice, which sees the tokens as they are embedded."""
    model = model_of([DECODER])
    batch = batch_of(model, "write")
    (use,) = (
        use
        for use in uses_by_data(model, model.assignments(batch))
        if (use.layer, use.site) == (0, "qkv")
    )
    x_TD, _, _ = model.embed_tokens(batch, 1, model.resolve("write"))
    scores_TE = x_TD @ model.decoder.blocks[0].attention.qkv.route.gate.weight.T
    counts = [0, 0, 0]
    for scores in scores_TE.tolist():
        for expert in sorted(range(3), key=lambda e: -scores[e])[:2]:
            counts[expert] += 1
    assert list(use.shares.values()) == pytest.approx(
        [count / sum(counts) for count in counts], abs=1e-6
    )
    assert (use.part, use.span) == (DECODER, "text/target/causal")


def test_experts_that_the_layout_decides_are_listed_where_they_run() -> None:
    model = model_of([ENCODER, IMAGE, DECODER], sparse={"qkv": {"route": "attribute"}})
    found = {(use.part, use.task, use.span) for use in uses_by_layout(model)}
    assert found == {
        (ENCODER, "classify", "text"), (ENCODER, "to_image", "text"), (ENCODER, "write", "text"),
        (IMAGE, "to_image", "image"), (DECODER, "write", "text/target/causal"),
    }  # fmt: skip


def test_inspect_names_the_part(parts: list[str], tmp_path: Path) -> None:
    model = model_of(parts, torch.float32)
    model.save_pretrained(tmp_path)
    found = inspect_folder(tmp_path)
    assert found["data_dependent"] == [f"{part}.{site}" for part in parts for site in TOKEN]
    assert found["routing"] == [] and len(data_choices(model)) == LAYERS * 2 * len(parts)


def test_blocks_that_layers_share_have_an_entry_for_each_layer() -> None:
    torch.manual_seed(0)
    shared = {"layers": 4, "distinct_layers": 2, "sparse": TOKEN}
    model = tiny_model(tiny_config(encoder=shared))
    load = model.assignments(batch_of(model, "classify"))
    assert {(choice.layer, choice.site) for choice, _ in load} == {
        (layer, site) for layer in range(4) for site in TOKEN
    }
    assert {choice for choice, _ in load} == set(model.choices())


def test_a_slice_answers_as_the_whole(parts: list[str], tmp_path: Path) -> None:
    whole = model_of(parts, torch.float32)
    whole.save_pretrained(tmp_path)
    for task in RUNS:
        part, batch = sw.load(tmp_path, tasks=[task]), batch_of(whole, task)
        assert set(part.state_dict()) == set(whole.active_parameters(task))
        assert part.count_parameters(task) == whole.count_parameters(task)
        with torch.no_grad():
            for target, logits in whole(batch).logits.items():
                assert relative_error(part(batch).logits[target], logits) == 0


def test_a_carved_model_answers_as_the_whole(parts: list[str], tmp_path: Path) -> None:
    """It keeps the experts that cannot merge, and has none where none run."""
    model = model_of(parts)
    for task, running in RUNS.items():
        sparse = [part for part in parts if part in running]
        if sparse:
            fault = rf"{sparse[0]}\.qkv has route 'token', which looks at the data"
            with pytest.raises(ConfigError, match=fault):
                carve(model, task)
        carved = carve(model, task, keep_experts=True)
        assert differences(model, carved, [batch_of(model, task)])[task] <= 1e-12
        assert set(carved.active_parameters(task)) == set(carved.state_dict())
        assert {choice.part for choice in carved.choices()} == set(sparse)
        assert carved.count_parameters(task) == model.count_parameters(task)
        carved.float().save_pretrained(tmp_path / task)
        again = sw.load(tmp_path / task)
        assert differences(carved, again, [batch_of(carved, task)])[task] == 0


def test_carving_merges_what_can_merge_and_keeps_the_rest() -> None:
    sparse = {
        "qkv": {"route": "attribute", "experts": 4},
        "attention_output": {"route": "follow"},
        "feed_forward": {"route": "modality", "experts": 4, "active": 2},
    }
    model = model_of([ENCODER, IMAGE, DECODER], sparse=sparse)
    for task in RUNS:
        carved = carve(model, task, keep_experts=True)
        assert differences(model, carved, [batch_of(model, task)])[task] <= 1e-12
        assert {choice.site for choice in carved.choices()} == {"feed_forward"}
        for part in RUNS[task]:
            block = carved.get_submodule(f"{part}.blocks.0")
            assert list(block.attention.qkv.experts) == ["shared"]
            kept = {name.split(".")[1] for name, _ in block.feed_forward.named_parameters()}
            assert len(kept & set("0123")) == 2


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_upcycling_every_part(parts: list[str], noise: float) -> None:
    dense = model_of([], torch.float32)
    result = upcycle(dense, dict.fromkeys(parts, TOKEN), noise)
    assert {choice.part for choice in result.choices()} == set(parts)
    assert result.config == config_of(dict.fromkeys(parts, TOKEN))
    fresh = {name for name, source in copied(result, dense).items() if not source}
    assert fresh == {
        f"{part}.blocks.{layer}.{bank}.route.gate.weight"
        for part in parts
        for layer in range(LAYERS)
        for bank in ("attention.qkv", "feed_forward")
    }
    for task, running in RUNS.items():
        error = differences(dense, result, [batch_of(dense, task)])[task]
        assert (error <= 1e-5) == (not noise or not set(parts) & set(running))


def test_upcycling_an_unknown_part() -> None:
    dense = tiny_model(tiny_config("dense"), torch.float32)
    with pytest.raises(ConfigError, match=r"unknown part of the model 'decoder'.*encoder"):
        upcycle(dense, {"decoder": TOKEN})
    with pytest.raises(ConfigError, match="has these experts already"):
        upcycle(dense, {"encoder": {}})

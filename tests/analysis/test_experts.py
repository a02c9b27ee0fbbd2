"""Which experts are used: against gates and a plain count, figures by hand, and what is merged for
the eye."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_batch, random_batch, random_examples, tiny_config, tiny_model

from skillweave.analysis import experts
from skillweave.analysis.experts import (
    ExpertCounter,
    Use,
    by_site,
    entropy,
    summarise,
    total_variation,
    uses_by_data,
    uses_by_layout,
    watch_load,
)
from skillweave.batch import Modality
from skillweave.model.model import Model

LENGTHS = {"classify": [[7], [4]], "to_code": [[5, 6], [3, 9]], "denoising": [[9, 4, 6], [9, 2, 3]]}
SHARES = st.lists(st.floats(0.01, 1), min_size=2, max_size=8).map(
    lambda xs: [x / sum(xs) for x in xs]
)


def model_of(**sparse: Any) -> Model:
    torch.manual_seed(0)
    return tiny_model(tiny_config(encoder={"sparse": sparse}))


def test_shares_by_layout_are_the_gates() -> None:
    model = model_of(qkv={"route": "skill"}, feed_forward_in={"route": "attribute", "experts": 4})
    found = {(use.site, use.layer, use.task, use.span): use for use in uses_by_layout(model)}
    assert found["qkv", 1, "to_code", "code"].shares == {
        m.value: float(m is Modality.CODE) for m in Modality
    }
    condition = model.conditions("captioning")[1]
    gates = model.encoder.blocks[1].feed_forward.layers[0].route.gates(condition)
    use = found["feed_forward_in", 1, "captioning", "text/causal"]
    assert use.route == "attribute" and list(use.shares) == ["0", "1", "2", "3"]
    assert use.shares == pytest.approx(
        {e: gates[e].item() if e in gates else 0 for e in use.shares}, abs=1e-6
    )
    assert {use.site for use in uses_by_layout(model, only_learned=True)} == {"feed_forward_in"}


def test_shares_by_data_are_those_of_a_plain_count() -> None:
    """Of the first choice, which sees the embedded tokens as they are."""
    model = model_of(
        qkv={"route": "token", "experts": 3}, feed_forward={"route": "context", "experts": 4}
    )
    batch = random_batch("denoising", LENGTHS["denoising"], model.config)
    uses = uses_by_data(model, model.assignments(batch))
    assert {(use.site, use.layer, len(use.shares)) for use in uses} == {
        ("qkv", 0, 3), ("feed_forward", 0, 4), ("qkv", 1, 3), ("feed_forward", 1, 4)
    }  # fmt: skip
    x_TD, tokens, _ = model.embed_tokens(batch, 0, {})
    gate = model.encoder.blocks[0].attention.qkv.route.gate.weight
    start = 0
    for condition, size in zip(tokens.conditions, tokens.sizes, strict=True):
        counts = [0, 0, 0]
        for x in x_TD[start : start + size]:
            scores = (gate @ x).tolist()
            for e in sorted(range(3), key=lambda e: -scores[e])[:2]:
                counts[e] += 1
        (use,) = (
            use for use in uses if (use.site, use.layer, use.span) == ("qkv", 0, condition.name)
        )
        assert list(use.shares.values()) == pytest.approx(
            [count / (2 * size) for count in counts], abs=1e-6
        )
        start += size


@pytest.mark.parametrize("task", sorted(LENGTHS))
def test_assignments_of_batches_add_up(task: str) -> None:
    model = model_of(linears={"route": "context", "experts": 4})
    examples = random_examples(task, LENGTHS[task], model.config)
    whole = model.assignments(make_batch(task, examples, model.config))
    total: experts.Load = {}
    for example in examples:
        experts.add_load(total, model.assignments(make_batch(task, [example], model.config)))
    assert {key: load.tolist() for key, load in total.items()} == {
        key: load.tolist() for key, load in whole.items()
    }


def test_the_first_samples_are_counted_and_all_batches_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(experts, "SAMPLES", 3)
    model = model_of(qkv={"route": "token"})
    batches = [random_batch("classify", LENGTHS["classify"], model.config) for _ in range(4)]
    total: experts.Load = {}
    assert list(watch_load(model, batches, total)) == batches
    # two batches and two experts a token, in each of two layers
    assert [load.sum().item() for load in total.values()] == [2 * 2 * 11] * 2
    nothing: experts.Load = {}
    assert (
        list(watch_load(model_of(qkv={"route": "task"}), batches, nothing)) == batches
        and not nothing
    )


def test_an_observer_counts_the_samples_and_the_candidates_of_each_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(experts, "SAMPLES", 3)
    model = model_of(qkv={"route": "token"})
    counter = ExpertCounter(model)
    expected: experts.Load = {}
    for task in LENGTHS:
        for _ in ("candidates", "samples"):
            batches = [random_batch(task, LENGTHS[task], model.config) for _ in range(4)]
            assert list(counter.watch(task, batches)) == batches
            for batch in batches[:2]:
                experts.add_load(expected, model.assignments(batch))
    assert {key: load.tolist() for key, load in counter.load.items()} == {
        key: load.tolist() for key, load in expected.items()
    }
    rows = [row for task in LENGTHS for row in counter.table(task)["experts"]]
    assert rows == [use._asdict() for use in counter.uses] and len(rows) == len(expected)
    silent = ExpertCounter(model_of(qkv={"route": "task"}))
    assert list(silent.watch("classify", batches)) == batches
    assert not silent.load and silent.table("classify") == {}


def test_layers_that_do_the_same_are_one_column() -> None:
    model = model_of(qkv={"route": "skill"}, feed_forward={"route": "task", "experts": 4})
    sites = {
        where: (route, [column.layers for column in columns])
        for where, route, columns in by_site(uses_by_layout(model))
    }
    assert sites == {
        "encoder.qkv": ("skill", ["0-1"]),
        "encoder.feed_forward": ("task", ["0", "1"]),
    }
    uses = [
        Use("encoder", layer, "qkv", "skill", "a", "text", {"text": 1.0}) for layer in (4, 0, 2)
    ]
    assert [column.layers for _, _, columns in by_site(uses) for column in columns] == ["0, 2, 4"]


def test_entropy_by_hand() -> None:
    assert entropy([1.0, 0.0, 0.0]) == 0 and entropy([1.0]) == 0
    assert entropy([0.25] * 4) == 1
    assert entropy([0.5, 0.5, 0, 0]) == pytest.approx(0.5)
    assert entropy([1 / 3, 1 / 3, 1 / 3, 0]) == pytest.approx(math.log(3) / math.log(4), abs=1e-6)


@given(SHARES)
def test_even_use_has_the_most_entropy(shares: list[float]) -> None:
    assert 0 < entropy(shares) <= 1


def test_total_variation_by_hand() -> None:
    assert total_variation({"0": 0.7, "1": 0.3}, {"0": 0.4, "2": 0.6}) == pytest.approx(0.6)
    assert total_variation({"0": 1.0}, {"0": 1.0, "1": 0.0}) == 0
    assert total_variation({"0": 1.0}, {"1": 1.0}) == 1


def test_figures_of_a_choice_by_hand() -> None:
    rows = {("a", "text"): [1.0, 0.0], ("a", "image"): [0.5, 0.5], ("b", "text"): [0.6, 0.4]}
    uses = [
        Use("encoder", 0, "qkv", "task", task, span, dict(zip("01", shares, strict=True)))
        for (task, span), shares in rows.items()
    ]
    before = {"a": {"text": {"0": 0.8, "1": 0.2}, "image": {"1": 1.0}}}
    found = summarise(uses, before)
    assert found["utilisation"] == pytest.approx({"0": 0.7, "1": 0.3})
    assert found["entropy"] == pytest.approx(
        -(0.7 * math.log2(0.7) + 0.3 * math.log2(0.3)), abs=1e-6
    )
    assert found["drift"] == pytest.approx({"a": (0.2 + 0.5) / 2})  # task b was not seen before
    assert found["shares"] == {
        "a": {"text": {"0": 1.0}, "image": {"0": 0.5, "1": 0.5}},
        "b": {"text": {"0": 0.6, "1": 0.4}},
    }

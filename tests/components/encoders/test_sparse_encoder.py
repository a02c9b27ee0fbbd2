"""Sparse linear layers inside a whole model: what is active, what it costs, and what belongs to
whom."""

from typing import Any

import pytest
import torch
from tiny import (
    TASKS,
    hidden_states,
    make_batch,
    random_batch,
    random_examples,
    relative_error,
    tiny_config,
    tiny_model,
)

from skillweave.batch import Batch, Example
from skillweave.components.encoders.base import Choice
from skillweave.config import ConfigError
from skillweave.config.training import AdamWConfig
from skillweave.data.collate import collate
from skillweave.layers.sparse import Dense, Mixed
from skillweave.model.config import ModelTask
from skillweave.model.model import Model
from skillweave.training.optimizer import make_optimizer

STATIC, DATA = ["skill", "modality", "task", "attribute"], ["token", "context"]
MANY = 12
"""Times as many samples: enough tokens of every span that experts are merged."""
LENGTHS = {
    "classify": [[7], [4]],
    "to_image": [[5, 5], [3, 5]],
    "denoising": [[9, 4, 6], [9, 2, 3]],
}
WIDTH, HIDDEN = 12, 20


def model_of(route: str, dtype: torch.dtype = torch.float64, **sparse: Any) -> Model:
    torch.manual_seed(0)
    options = (
        {"route": route}
        if route == "skill"
        else {"route": route, "experts": 4, **sparse.pop("options", {})}
    )
    return tiny_model(tiny_config(encoder={"sparse": {"linears": options, **sparse}}), dtype)


def batch_of(task: str, model: Model, times: int = 1) -> Batch:
    return random_batch(task, LENGTHS[task] * times, model.config)


@pytest.mark.parametrize("times", [1, MANY])
@pytest.mark.parametrize("task", sorted(LENGTHS))
@pytest.mark.parametrize("route", STATIC)
def test_gradients_reach_exactly_the_active_parameters(route: str, task: str, times: int) -> None:
    """Of merged experts, and of those that stay apart as there are few tokens."""
    model = model_of(route)
    batch = batch_of(task, model, times)
    assert all((count < 32) == (times == 1) for count in batch.condition_tokens.values())
    model(batch).loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(
        model.active_parameters(task)
    )


def test_the_optimizer_leaves_what_is_not_active_alone() -> None:
    """Neither updates nor decays it, though another task trained it before."""
    model = model_of("task").train()
    optimizer = make_optimizer(model, AdamWConfig(learning_rate=0.1, weight_decay=0.5))
    for task in ("to_image", "classify"):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        active = set(model.active_parameters(task))
        model(batch_of(task, model)).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} <= active
    assert 0 < len(active) < len(before)


@pytest.mark.parametrize("route", [*STATIC, *DATA])
def test_frozen_weights_are_merged_once_and_belong_to_the_caller(route: str) -> None:
    model = model_of(route)
    batch = batch_of("denoising", model)
    resolved = model.resolve("denoising")
    assert relative_error(model(batch, resolved=resolved).loss, model(batch).loss) < 1e-9
    if route == "attribute":
        kinds = {
            type(w)
            for blocks in resolved.values()
            for block in blocks
            for pair in block
            for w in pair[:2]
        }
        assert kinds == {Dense}
        few = model.encoder.resolve(batch.condition_tokens, None, batch.condition_tokens)
        assert {
            type(w)
            for blocks in few.values()
            for block in blocks
            for pair in block
            for w in pair[:2]
        } == {Mixed}
    with pytest.raises(
        ConfigError,
        match=r"not those of task 'classify'; get them with model\.resolve\('classify'\)",
    ):
        model(batch_of("classify", model), resolved=resolved)


def test_one_side_of_a_pair_is_encoded_as_in_the_pair() -> None:
    """Attributes tell of the whole task, also when its other span is not in the batch."""
    model = model_of("attribute")
    examples = random_examples("to_image", LENGTHS["to_image"], model.config)
    batch = make_batch("to_image", examples, model.config)
    for side, both in enumerate(model.embed(batch)):
        alone = [Example((example.spans[side],), {}) for example in examples]
        one = collate(batch.layout.only(side), alone, model.config.streams, 4)
        torch.testing.assert_close(model.embed(one, model.resolve("to_image"))[0], both)


@pytest.mark.parametrize("route", ["attribute", *DATA])
def test_the_resolved_encoder_compiles_whole(route: str) -> None:
    model = model_of(route)
    batch = batch_of("denoising", model)
    compiled = torch.compile(model.encoder, fullgraph=True, backend="aot_eager")
    found = {}
    for name, encoder in (("plain", model.encoder), ("compiled", compiled)):
        x_TD, tokens, _ = model.embed_tokens(batch, 0, {})
        resolved = model.encoder.resolve(batch.layout.conditions)
        y_TD, _ = encoder(x_TD, tokens, [resolved[c] for c in tokens.conditions])
        model.zero_grad()
        y_TD.square().sum().backward()
        found[name] = [
            y_TD,
            *(p.grad for p in model.encoder.parameters() if p.grad is not None and p.grad.any()),
        ]
    for mine, theirs in zip(found["compiled"], found["plain"], strict=True):
        assert relative_error(mine, theirs) < 1e-9


def test_a_task_never_seen_has_experts_by_its_layout_alone() -> None:
    model = model_of("attribute")
    known = model.conditions("captioning")
    new = ModelTask.parse(TASKS["captioning"]).layout("describe").conditions
    found, expected = (model.encoder.resolve(conditions) for conditions in (new, known))
    assert not set(new) & set(known)
    for mine, theirs in zip(new, known, strict=True):
        for block, other in zip(found[mine], expected[theirs], strict=True):
            assert torch.equal(block.attention[0].weight, other.attention[0].weight)


@pytest.mark.parametrize("route", ["attribute", "context"])
def test_autocast(route: str) -> None:
    model = model_of(route, torch.float32)
    batch = make_batch(
        "classify", random_examples("classify", [[5], [9]], model.config), model.config
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = hidden_states(model, batch)[0]
    assert relative_error(found.float(), hidden_states(model, batch)[0]) < 0.2


def test_names_of_parameters() -> None:
    """What is dense keeps the names that it has in a dense model."""
    dense, sparse = (
        {n for n, _ in m.named_parameters()}
        for m in (tiny_model(tiny_config("dense")), model_of("task", every=2))
    )
    assert {n for n in dense if ".blocks.1." in n} == {n for n in sparse if ".blocks.1." in n}
    skills = {n for n, _ in tiny_model(tiny_config("skill")).named_parameters()}
    block = "encoder.blocks.0"
    assert (
        f"{block}.attention.qkv.experts.text.weight" in skills
        and f"{block}.attention.output.weight" in skills
    )
    assert f"{block}.feed_forward.experts.shared.inner.weight" in dense & skills
    for path in (
        "attention.qkv",
        "attention.output",
        "feed_forward.experts.shared.inner",
        "feed_forward.experts.shared.outer",
    ):
        assert f"{block}.{path}.experts.3.weight" in sparse
    gates = {n for n in sparse if n.endswith("route.gate.weight")}
    assert gates == {
        f"{block}.{path}.route.gate.weight"
        for path in ("attention.qkv", "feed_forward.experts.shared.inner")
    }


def linears() -> int:
    """Weights and biases of a layer's four linear layers."""
    return sum(
        a * b + b for a, b in ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, HIDDEN), (HIDDEN, WIDTH))
    )


def test_counts_by_hand() -> None:
    dense = tiny_model(tiny_config("dense"))
    gates = {"token": 4 * WIDTH, "task": 4 * WIDTH + WIDTH, "modality": 4 * WIDTH + WIDTH}
    for route, gate in gates.items():
        # Two layers of two gates; of four experts two are active for a task of one condition, or
        # for one token.
        expected = dense.count_parameters("classify") + 2 * (linears() + 2 * gate)
        assert model_of(route).count_parameters("classify") == expected
    assert model_of("token").count_parameters() == dense.count_parameters() + 2 * (
        3 * linears() + 2 * 4 * WIDTH
    )
    with torch.device("meta"):
        assert Model(model_of("task").config).count_parameters("classify") == model_of(
            "task"
        ).count_parameters("classify")


def test_choices_are_listed_in_the_order_they_are_made() -> None:
    """Those of the first layer alone, as the second is dense; a layer that follows chooses
    nothing."""
    sparse = {
        "qkv": {"route": "skill"},
        "feed_forward_in": {"route": "task"},
        "feed_forward_out": {"route": "follow"},
        "every": 2,
    }
    choices = list(tiny_model(tiny_config(encoder={"sparse": sparse})).encoder.choices())
    assert [(layer, site, route.name) for layer, site, route in choices] == [
        (0, "qkv", "skill"),
        (0, "feed_forward_in", "task"),
    ]
    assert not list(tiny_model(tiny_config("dense")).encoder.choices())
    whole = tiny_model(tiny_config("token", {"route": "token"})).encoder.choices()
    assert [(layer, site) for layer, site, _ in whole] == [
        (layer, site) for layer in (0, 1) for site in ("qkv", "feed_forward")
    ]


def test_token_gates_report_load_and_balance() -> None:
    sparse = {
        "qkv": {"route": "token", "experts": 4, "balance": 0.5},
        "feed_forward_out": {"route": "context", "experts": 3},
    }
    model = tiny_model(tiny_config(encoder={"sparse": sparse}))
    batch = batch_of("to_image", model)
    out = model(batch)
    experts = {"qkv": 4, "feed_forward_out": 3}
    assert set(out.load) == {
        (Choice("encoder", layer, site), condition)
        for layer in range(2)
        for site in experts
        for condition in batch.layout.conditions
    }
    for (choice, condition), load in out.load.items():
        assert len(load) == experts[choice.site]
        assert load.sum() == 2 * batch.condition_tokens[condition]  # two experts a token
        assert torch.equal(load, model.assignments(batch)[choice, condition])
    assert (out.loss - out.losses["contrastive"]).item() > 0.4  # 0.5 when even


@pytest.mark.parametrize("route", [*STATIC, *DATA])
def test_causal_tokens_do_not_see_the_future(route: str) -> None:
    model = model_of(route)
    examples = random_examples("captioning", [[5, 6]], model.config)
    image, text = examples[0].spans
    other = text.data.clone()
    other[-1] = (other[-1] + 1) % 30
    states = [
        hidden_states(
            model,
            make_batch("captioning", [Example((image, type(text)(data, 6)), {})], model.config),
        )[0]
        for data in (text.data, other)
    ]
    assert TASKS["captioning"]["spans"][1]["attention"] == "causal"
    torch.testing.assert_close(states[0][:, :10], states[1][:, :10])
    assert not torch.allclose(states[0][:, 10], states[1][:, 10])

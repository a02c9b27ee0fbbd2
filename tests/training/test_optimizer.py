"""Weight decay, the learning rate schedule, and parameters without a gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_config, tiny_model
from torch import nn

from skillweave.components.embeddings.position import ConvolutionPositionEmbedding
from skillweave.config import ConfigError
from skillweave.config.training import OptimizerConfig
from skillweave.training.optimizer import (
    learning_rate,
    load_optimizer_tensors,
    make_optimizer,
    make_schedule,
    optimizer_tensors,
    split_by_decay,
)


class Parts(nn.Module):
    no_weight_decay = ("position",)

    def __init__(self):
        super().__init__()
        self.word = nn.Embedding(5, 4)
        self.position = nn.Parameter(torch.ones(3, 4))
        self.linear = nn.Linear(4, 4)
        self.patch = nn.Conv2d(3, 4, 2)
        self.norm = nn.LayerNorm((2, 4))
        self.scale = nn.Parameter(torch.ones(()))


def test_only_matrices_that_are_not_listed_tables_or_norms_decay():
    decay, plain = split_by_decay(Parts())
    assert set(decay) == {"linear.weight", "patch.weight"}
    assert set(plain) == {
        "word.weight", "position", "linear.bias", "patch.bias", "norm.weight", "norm.bias", "scale"
    }  # fmt: skip


def test_prompts_and_positions_by_convolution_do_not_decay():
    model = tiny_model(tiny_config(encoder={"prompts": 2}))
    model.add_module("added", ConvolutionPositionEmbedding(3, 1, 4))
    decay, plain = split_by_decay(model)
    assert {"added.direction", "added.gain"} <= set(plain)
    assert any(name.endswith(".prompts") for name in plain)
    assert not any(name.endswith((".prompts", ".gain")) for name in decay)


def test_frozen_parameters_are_left_out():
    model = Parts()
    model.linear.requires_grad_(False)
    decay, plain = split_by_decay(model)
    assert "linear.weight" not in decay and "linear.bias" not in plain


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ConfigError, match="no trainable parameter"):
        make_optimizer(Parts().requires_grad_(False), OptimizerConfig())


def test_rates_by_hand():
    # 10 steps, 2 of them warm-up: half, full, then eight equal steps down to an eighth.
    config = OptimizerConfig(learning_rate=8.0, warmup=0.2)
    assert [learning_rate(s, 10, config) for s in range(10)] == [4, 8, 8, 7, 6, 5, 4, 3, 2, 1]
    assert learning_rate(10, 10, config) == 0


def test_warmup_in_steps_and_none_at_all():
    assert learning_rate(0, 10, OptimizerConfig(learning_rate=4.0, warmup=4)) == 1
    assert learning_rate(0, 10, OptimizerConfig(learning_rate=4.0, warmup=0)) == 4


def test_the_rate_is_constant_before_a_short_decay():
    config = OptimizerConfig(learning_rate=8.0, warmup=2, decay=0.5)
    assert [learning_rate(s, 10, config) for s in range(10)] == [4, 8, 8, 8, 8, 8, 8, 6, 4, 2]
    constant = OptimizerConfig(learning_rate=8.0, warmup=0, decay=0.0)
    assert {learning_rate(s, 10, constant) for s in range(10)} == {8}


@given(
    st.integers(1, 300),
    st.floats(0, 0.99) | st.integers(1, 400),
    st.sampled_from(["linear", "cosine"]),
)
def test_rate_rises_then_falls_and_stays_positive(steps, warmup, schedule):
    config = OptimizerConfig(learning_rate=1.0, warmup=warmup, schedule=schedule)
    rates = [learning_rate(step, steps, config) for step in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(
        rates[peak:], reverse=True
    )


def test_cosine_is_that_of_transformers_after_the_warm_up():
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-4)
    theirs = transformers.get_cosine_schedule_with_warmup(optimizer, 4, 20)
    config = OptimizerConfig(learning_rate=3e-4, warmup=0.2, schedule="cosine")
    for step in range(20):
        if step >= 4:
            wanted = theirs.get_last_lr()[0]
            assert learning_rate(step, 20, config) == pytest.approx(wanted, rel=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("done", [0, 1, 4, 7])
def test_the_schedule_sets_exactly_these_rates_from_any_step(done):
    config = OptimizerConfig(learning_rate=3e-4, warmup=3)
    optimizer = make_optimizer(nn.Linear(2, 1), config)
    schedule = make_schedule(optimizer, config, 7, done)
    found = []
    for _ in range(done, 7):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found == [learning_rate(step, 7, config) for step in range(done, 7)]


def test_first_update_by_hand():
    # AdamW's first step moves by rate · sign(g) (the means' corrections cancel), after decaying by
    # rate · decay.
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = make_optimizer(model, OptimizerConfig(learning_rate=0.1, weight_decay=0.5))
    model.weight.grad = torch.tensor([[3.0, -0.01]])
    optimizer.step()
    torch.testing.assert_close(model.weight.data, torch.tensor([[1.8, 2.0]]), rtol=1e-5, atol=1e-5)


def test_what_was_not_active_is_neither_updated_nor_decayed_nor_counted():
    model = nn.ModuleDict({"on": nn.Linear(3, 3), "off": nn.Linear(3, 3)})
    optimizer = make_optimizer(model, OptimizerConfig(learning_rate=0.1, weight_decay=0.5))
    x = torch.randn(2, 3)
    (model["on"](x) + model["off"](x)).sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    before = model["off"].weight.detach().clone()
    model["on"](x).sum().backward()
    optimizer.step()
    assert torch.equal(model["off"].weight, before)
    assert optimizer.state[model["on"].weight]["step"] == 2
    assert optimizer.state[model["off"].weight]["step"] == 1


def test_state_survives_a_round_trip_bit_by_bit():
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def step(model, optimizer, schedule, number):
        torch.manual_seed(number)
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)

    config = OptimizerConfig()
    straight = build()
    optimizer = make_optimizer(straight, config)
    schedule = make_schedule(optimizer, config, 6)
    for number in range(3):
        step(straight, optimizer, schedule, number)
    weights, stored = (
        {n: t.clone() for n, t in straight.state_dict().items()},
        optimizer_tensors(optimizer, straight),
    )
    stored = {name: tensor.clone() for name, tensor in stored.items()}
    resumed = build()
    resumed.load_state_dict(weights)
    other = make_optimizer(resumed, config)
    load_optimizer_tensors(other, resumed, stored)
    resumed_schedule = make_schedule(other, config, 6, done=3)
    for number in range(3, 6):
        step(straight, optimizer, schedule, number)
        step(resumed, other, resumed_schedule, number)
    assert all(
        torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True)
    )


def test_parameters_that_were_never_active_have_no_state():
    model = nn.ModuleDict({"on": nn.Linear(2, 2), "off": nn.Linear(2, 2)})
    optimizer = make_optimizer(model, OptimizerConfig())
    model["on"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert {name.split(".")[0] for name in optimizer_tensors(optimizer, model)} == {"on"}


@pytest.mark.parametrize(
    "path, tensor", [("gone.weight/exp_avg", torch.ones(2)), ("weight/exp_avg", torch.ones(2, 3))]
)
def test_state_of_another_model_is_refused(path, tensor):
    model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="fits no parameter"):
        load_optimizer_tensors(make_optimizer(model, OptimizerConfig()), model, {path: tensor})

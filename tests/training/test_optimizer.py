"""Weight decay, the learning rate schedule, and parameters without a gradient."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import task, tiny_config, tiny_model
from torch import nn

from skillweave.components.embeddings.position import ConvolutionPositionEmbedding
from skillweave.config import ConfigError
from skillweave.config.training import (
    AdafactorConfig,
    AdamW8bitConfig,
    AdamWConfig,
    MuonConfig,
    TrainingConfig,
)
from skillweave.training.muon import MatrixMuon, block_matrices
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
        make_optimizer(Parts().requires_grad_(False), AdamWConfig())


def test_rates_by_hand():
    # 10 steps, 2 of them warm-up: half, full, then eight equal steps down to an eighth.
    config = AdamWConfig(learning_rate=8.0, warmup=0.2)
    assert [learning_rate(s, 10, config) for s in range(10)] == [4, 8, 8, 7, 6, 5, 4, 3, 2, 1]
    assert learning_rate(10, 10, config) == 0


def test_warmup_in_steps_and_none_at_all():
    assert learning_rate(0, 10, AdamWConfig(learning_rate=4.0, warmup=4)) == 1
    assert learning_rate(0, 10, AdamWConfig(learning_rate=4.0, warmup=0)) == 4


def test_the_rate_is_constant_before_a_short_decay():
    config = AdamWConfig(learning_rate=8.0, warmup=2, decay=0.5)
    assert [learning_rate(s, 10, config) for s in range(10)] == [4, 8, 8, 8, 8, 8, 8, 6, 4, 2]
    constant = AdamWConfig(learning_rate=8.0, warmup=0, decay=0.0)
    assert {learning_rate(s, 10, constant) for s in range(10)} == {8}


def test_the_square_root_decay_of_wsd_by_hand():
    # 16 steps of decay after 4 constant ones: 1 - sqrt(k / 16)
    config = AdamWConfig(learning_rate=8.0, warmup=0, decay=0.8, schedule="1-sqrt")
    rates = [learning_rate(s, 20, config) for s in range(20)]
    assert rates[:5] == [8, 8, 8, 8, 8]
    assert [rates[4 + k] for k in (1, 4, 9)] == [6, 4, 2]


@given(
    st.integers(1, 300),
    st.floats(0, 0.99) | st.integers(1, 400),
    st.sampled_from(["linear", "cosine", "1-sqrt"]),
)
def test_rate_rises_then_falls_and_stays_positive(steps, warmup, schedule):
    config = AdamWConfig(learning_rate=1.0, warmup=warmup, schedule=schedule)
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
    config = AdamWConfig(learning_rate=3e-4, warmup=0.2, schedule="cosine")
    for step in range(20):
        if step >= 4:
            wanted = theirs.get_last_lr()[0]
            assert learning_rate(step, 20, config) == pytest.approx(wanted, rel=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("done", [0, 1, 4, 7])
def test_the_schedule_sets_exactly_these_rates_from_any_step(done):
    config = AdamWConfig(learning_rate=3e-4, warmup=3)
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
    optimizer = make_optimizer(model, AdamWConfig(learning_rate=0.1, weight_decay=0.5))
    model.weight.grad = torch.tensor([[3.0, -0.01]])
    optimizer.step()
    torch.testing.assert_close(model.weight.data, torch.tensor([[1.8, 2.0]]), rtol=1e-5, atol=1e-5)


KINDS = {
    "adamw": AdamWConfig,
    "adafactor": AdafactorConfig,
    "muon": MuonConfig,
    "adamw_8bit": AdamW8bitConfig,
}


@pytest.fixture(params=KINDS)
def config(request):
    if request.param == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    return KINDS[request.param](learning_rate=0.1, weight_decay=0.5)


def sparse_model():
    """A model with a bank of experts, one of whose weights is large enough for 8 bits."""
    torch.manual_seed(0)
    encoder = {"heads": 4, "layers": 1, "feed_forward": 512, "gated": True}
    return tiny_model(tiny_config(encoder=encoder), torch.float32)


def set_gradients(model, seed, resting=""):
    """Random gradients for all parameters but those whose name has `resting` in it."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        gradient = torch.randn(parameter.shape, generator=random)
        parameter.grad = None if resting and resting in name else gradient


def test_what_was_not_active_is_neither_updated_nor_decayed_nor_counted(config):
    model = sparse_model()
    optimizer = make_optimizer(model, config)
    set_gradients(model, 0)
    optimizer.step()
    resting = {n: p for n, p in model.named_parameters() if "experts.text" in n}
    before = {name: parameter.detach().clone() for name, parameter in resting.items()}
    state = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, model).items()}
    set_gradients(model, 1, resting="experts.text")
    optimizer.step()
    assert resting
    for name, parameter in resting.items():
        assert torch.equal(before[name], parameter)
    after = optimizer_tensors(optimizer, model)
    kept = {name.rpartition("/")[0] for name in after if torch.equal(after[name], state[name])}
    assert kept >= resting.keys()
    changed = {
        name.rpartition("/")[0] for name in after if not torch.equal(after[name], state[name])
    }
    assert changed == dict(model.named_parameters()).keys() - resting.keys()


def test_adamw_counts_the_updates_of_each_parameter():
    model = nn.ModuleDict({"on": nn.Linear(3, 3), "off": nn.Linear(3, 3)})
    optimizer = make_optimizer(model, AdamWConfig())
    set_gradients(model, 0)
    optimizer.step()
    set_gradients(model, 1, resting="off")
    optimizer.step()
    assert optimizer.state[model["on"].weight]["step"] == 2
    assert optimizer.state[model["off"].weight]["step"] == 1


def test_a_resumed_run_has_the_same_bits(config, tmp_path):
    def steps(model, optimizer, schedule, numbers):
        for number in numbers:
            set_gradients(model, number, resting="experts.text" if number % 2 else "")
            optimizer.step()
            schedule.step()

    straight = sparse_model()
    optimizer = make_optimizer(straight, config)
    schedule = make_schedule(optimizer, config, 6)
    steps(straight, optimizer, schedule, range(3))
    weights = {name: tensor.clone() for name, tensor in straight.state_dict().items()}
    save_file(optimizer_tensors(optimizer, straight), tmp_path / "state.safetensors")
    resumed = sparse_model()
    resumed.load_state_dict(weights)
    other = make_optimizer(resumed, config)
    load_optimizer_tensors(other, resumed, load_file(tmp_path / "state.safetensors"))
    steps(straight, optimizer, schedule, range(3, 6))
    steps(resumed, other, make_schedule(other, config, 6, done=3), range(3, 6))
    assert all(
        torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True)
    )


def test_muon_is_pytorchs_for_each_projection():
    fused = torch.nn.Parameter(torch.randn(10, 4))
    parts = [torch.nn.Parameter(part.clone()) for part in fused.detach().split([6, 2, 2])]
    settings = {"lr": 0.1, "weight_decay": 0.5, "adjust_lr_fn": "match_rms_adamw"}
    ours, theirs = MatrixMuon({fused: [6, 2, 2]}, **settings), torch.optim.Muon(parts, **settings)
    for _ in range(3):
        gradient = torch.randn(10, 4)
        fused.grad = gradient
        for part, own in zip(parts, gradient.split([6, 2, 2]), strict=True):
            part.grad = own
        ours.step()
        theirs.step()
    assert torch.equal(fused, torch.cat(parts))


def test_muon_updates_the_matrices_of_blocks_and_adamw_the_rest():
    tasks = {"describe": task("lm", "image", "text/causal")}
    encoder = {"heads": 4, "key_value_heads": 2, "gated": True, "prompts": 2, "layers": 1}
    decoded = tiny_config(
        "task",
        encoder=encoder,
        decoder={"layers": 1, "heads": 3},
        target_embedding={"vocabulary": 9},
        targets={"lm": {}},
        tasks=tasks,
    )
    model = tiny_model(decoded)
    found = block_matrices(model)
    rows = {name: found[p] for name, p in model.named_parameters() if p in found}
    assert all(name.endswith(".weight") and ".blocks." in name for name in rows)
    assert not any("route" in name or "norm" in name for name in rows)
    by_part = {
        name.split("blocks.0.")[1]: sizes for name, sizes in rows.items() if "encoder" in name
    }
    first = next(
        sizes for name, sizes in by_part.items() if name.startswith("attention.qkv.experts")
    )
    assert first == [12, 6, 6]
    assert by_part["feed_forward.experts.shared.inner.weight"] == [20, 20]
    assert by_part["feed_forward.experts.shared.outer.weight"] == [12]
    cross = next(sizes for name, sizes in rows.items() if name.endswith("key_value.weight"))
    assert cross == [12, 12]
    optimizer = make_optimizer(model, MuonConfig())
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(model.parameters()))
    decaying = {p for group in optimizer.param_groups[1:2] for p in group["params"]}
    assert not decaying & found.keys()


def test_muon_without_a_block_is_adamw():
    assert type(make_optimizer(nn.Linear(2, 2), MuonConfig())) is torch.optim.AdamW


def test_the_gates_of_routes_and_low_rank_factors_are_not_muons():
    model = tiny_model(tiny_config("attribute"))
    gates = [p for name, p in model.named_parameters() if "route.gate" in name]
    assert gates and not {*gates} & block_matrices(model).keys()


def test_eight_bits_without_the_package_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(
        ConfigError, match=r"needs bitsandbytes; run pip install 'skillweave\[8bit\]'"
    ):
        make_optimizer(nn.Linear(2, 2), AdamW8bitConfig())


def test_eight_bits_are_for_large_matrices_alone():
    pytest.importorskip("bitsandbytes")
    model = sparse_model()
    optimizer = make_optimizer(model, AdamW8bitConfig())
    set_gradients(model, 0)
    optimizer.step()
    stored = optimizer_tensors(optimizer, model)
    small = {name.rpartition("/")[0] for name, x in stored.items() if x.dtype == torch.uint8}
    assert small == {
        f"encoder.blocks.0.feed_forward.experts.shared.{layer}.weight"
        for layer in ("inner", "outer")
    }


def test_kinds_by_name_with_their_own_settings():
    def optimizer(**settings):
        return TrainingConfig.parse({"steps": 1, "optimizer": settings}).optimizer

    assert type(optimizer()) is AdamWConfig
    assert {name: type(optimizer(kind=name)) for name in KINDS} == KINDS
    with pytest.raises(ConfigError, match=r"unknown value 'moun'.*muon"):
        optimizer(kind="moun")
    with pytest.raises(ConfigError, match="'adafactor' has no betas"):
        optimizer(kind="adafactor", betas=[0.9, 0.9])


def test_parameters_that_were_never_active_have_no_state():
    model = nn.ModuleDict({"on": nn.Linear(2, 2), "off": nn.Linear(2, 2)})
    optimizer = make_optimizer(model, AdamWConfig())
    model["on"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert {name.split(".")[0] for name in optimizer_tensors(optimizer, model)} == {"on"}


@pytest.mark.parametrize(
    "path, tensor", [("gone.weight/exp_avg", torch.ones(2)), ("weight/exp_avg", torch.ones(2, 3))]
)
def test_state_of_another_model_is_refused(path, tensor):
    model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="fits no parameter"):
        load_optimizer_tensors(make_optimizer(model, AdamWConfig()), model, {path: tensor})

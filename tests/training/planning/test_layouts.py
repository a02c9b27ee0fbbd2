"""Memory and communication of layouts, by hand for a model of 100 numbers a layer."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillweave.config import ConfigError
from skillweave.config.training import TrainingConfig
from skillweave.training.planning import layouts
from skillweave.training.planning.hardware import GPUS, Hardware, find_gpu
from skillweave.training.planning.layouts import Layout, estimate, possible
from skillweave.training.planning.plan import ranked
from skillweave.training.planning.trace import Operation, StepTrace

GPU = Hardware("test", 1e12, {"float32": 1e9}, 1e12, 1e9, 1e8, 1e9, 8, efficiency=1.0)
TRACE = StepTrace(
    task="t",
    samples=2,
    tokens=20,
    parameters=4_800_000,
    gradients=4_800_000,
    state=9_600_000,
    inputs=1_000,
    kept=34_000_000,
    kept_by_blocks=30_600_000,
    activations=35_000_000,
    peak=40_000_000,
    update_peak=9_600_000,
    operations=Counter(
        {Operation("forward", 10**9, 10, True): 1, Operation("backward", 10**9, 10, False): 2}
    ),
)
MODEL = layouts.Model(
    trace=TRACE,
    weights=1_200_000,
    trained=1_200_000,
    blocks=800_000,
    experts=0,
    unit=200_000,
    layers=8,
    divisor=8,
    width=16,
    expert_layers=0,
    experts_in_layer=0,
    state_bytes=8,
    compute_bytes=4,
)


def found(layout, samples=64):
    return estimate(MODEL, layout, GPU, "float32", samples)


def test_replicas_hold_everything_and_average_gradients_in_a_ring():
    one = found(Layout(8))
    assert (one.weights, one.gradients, one.state) == (4.8e6, 4.8e6, 9.6e6)
    assert one.sent == pytest.approx(2 * 7 / 8 * 4.8e6)
    assert one.accumulation == 4
    assert one.computation == pytest.approx(4 * 3, rel=1e-3)
    assert one.activations == 35e6 + 1_000


def test_zero_divides_gradients_and_state_and_then_weights():
    two, three = found(Layout(8, 2)), found(Layout(8, 3))
    assert (two.weights, two.gradients, two.state) == (4.8e6, 4.8e6, 1.2e6)
    assert found(Layout(8, 2), samples=16).gradients == 0.6e6  # a single micro-batch
    assert (three.weights, three.gradients, three.state) == (0.6e6, 0.6e6, 1.2e6)
    # the gradients are scattered, and the weights gathered: once, or twice in each micro-batch
    assert two.sent == pytest.approx(7 / 8 * 2 * 4.8e6)
    assert three.sent == pytest.approx(7 / 8 * 4 * (4.8e6 + 2 * 4.8e6))
    host = found(Layout(8, 3, offload=True))
    assert host.weights == host.gradients == host.state == 0


def test_tensor_and_pipeline_divide_the_layers():
    tensor, pipeline = found(Layout(1, tensor=2)), found(Layout(1, pipeline=4))
    # what is outside of the layers is copied
    assert tensor.weights == pytest.approx(4 * (400_000 + 800_000 / 2))
    assert pipeline.weights == pytest.approx(4 * (400_000 + 800_000 / 4))
    # 24 of 34 parts of what layers keep are divided (arXiv 2205.05198)
    assert tensor.activations == pytest.approx(30.6e6 * 22 / 34 + 4.4e6 + 1_000)
    # the first stage holds four micro-batches of a quarter of the layers
    assert pipeline.activations == pytest.approx(30.6e6 + 4.4e6 + 4 * 1_000)
    # 32 micro-batches on four stages: three of 32 parts are idle
    assert pipeline.bubble == pytest.approx(3 / 32 * (32 * 3 / 4))
    # four sums of 20 tokens in each of 8 layers and 32 micro-batches
    assert tensor.sent == pytest.approx(4 * 2 * 1 / 2 * 20 * 16 * 4 * 8 * 32)


@pytest.mark.parametrize("gpus", [4, 8])
def test_layouts_are_settings_of_a_recipe(gpus):
    model = replace(MODEL, experts=4 * gpus, experts_in_layer=gpus)
    kinds = set()
    for layout in possible(model, gpus, GPU):
        one = estimate(model, layout, GPU, "float32", 64)
        if one is not None:
            settings = TrainingConfig.parse({"steps": 1, **one.to_json()["settings"]})
            assert settings.devices == gpus and settings.replicas == layout.data
            kinds.add(settings.parallel.kind)
    assert kinds == {"replicated", "sharded", "expert"}


def test_a_pipeline_has_as_many_micro_batches_as_stages():
    assert found(Layout(1, pipeline=4), samples=8) is not None
    assert found(Layout(1, pipeline=8), samples=8) is None


@given(st.integers(1, 64))
def test_all_gpus_are_used_and_all_samples_are_trained(gpus):
    samples = 2 * 64 * gpus
    for layout in possible(MODEL, gpus, GPU):
        assert layout.data * layout.tensor * layout.pipeline == gpus
        one = estimate(MODEL, layout, GPU, "float32", samples)
        if one is not None:
            assert one.accumulation * layout.data * TRACE.samples == samples
            assert one.step >= samples / TRACE.samples * 3 / gpus
            assert 0 < one.utilisation <= 1


def test_what_fits_comes_first_and_fastest():
    small = Hardware(**{**vars(GPU), "memory": 1.55e9})
    order = ranked(MODEL, small, 8, "float32", 128)
    fits = [one.fits for one in order]
    assert fits == sorted(fits, reverse=True) and {*fits} == {True, False}
    steps = [one.step for one in order if one.fits]
    assert steps == sorted(steps)
    assert all(one.memory <= 1.55e9 for one in order if one.fits)


def test_what_cannot_be_divided_is_told():
    with pytest.raises(ConfigError, match="11 GPUs cannot divide 2 samples"):
        ranked(MODEL, GPU, 11, "float32", 2)
    with pytest.raises(ConfigError, match="a100"):
        find_gpu("a10", None)
    with pytest.raises(ConfigError, match="gpu-memory"):
        find_gpu(None, -1.0)
    assert find_gpu(None, 32.0).name == GPUS["v100"].name


def test_micro_batches_shrink_where_there_are_many_replicas():
    one = found(Layout(32), samples=32)
    assert one.accumulation == 1
    assert one.activations == pytest.approx((35e6 + 1_000) / 2)
    assert one.computation == pytest.approx(3 / 2, rel=1e-3)

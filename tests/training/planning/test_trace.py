"""Traces against the memory that PyTorch's allocator reports, and against counts by hand."""

from dataclasses import fields, replace

import pytest
import torch
from every_task import SOURCES, recipe
from tiny import random_batch, tiny_config

from skillweave.config.training import AdamWConfig, MuonConfig
from skillweave.layers.recompute import Recompute
from skillweave.model.model import Model
from skillweave.training.optimizer import make_optimizer
from skillweave.training.planning.largest import LargestBatches
from skillweave.training.planning.trace import StepTrace, deeper, trace_step
from skillweave.weights.meta import meta_device

LENGTHS = {"classify": [[24]] * 6, "to_image": [[24, 5], [9, 5]] * 4, "captioning": [[5, 20]] * 5}


def real_peak(model, batch, optimizer):
    """The most bytes at once beside weights, batch and state, as the CPU allocator reports."""

    def step():
        model(batch, loss_only=True).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()  # the state of the optimizer
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    found = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(found, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def batch_of(task, lengths, config):
    """A batch in float32."""
    batch = random_batch(task, lengths, config)
    inputs = tuple(x.float() if x.is_floating_point() else x for x in batch.inputs)
    return replace(batch, inputs=inputs)


def model_of(route="skill", feed_forward=None, recompute=None):
    """Wide enough that tensors outweigh what kernels allocate inside."""
    encoder = {"layers": 3, "heads": 4, "feed_forward": 256, "dropout": 0.1}
    built = Model(tiny_config(route, feed_forward, width=128, encoder=encoder))
    built.recompute_activations(recompute)
    return built.train()


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classify", {}),
        ("to_image", {}),
        ("captioning", {}),
        ("captioning", {"recompute": Recompute(1)}),
        ("classify", {"recompute": Recompute(1, selective=True)}),
        ("classify", {"feed_forward": {"route": "token", "experts": 4, "active": 2}}),
    ],
    ids=str,
)
def test_the_peak_is_that_of_the_allocator(task, options):
    model = model_of(**options)
    batch = batch_of(task, LENGTHS[task], model.config)
    trace = trace_step(model, batch, AdamWConfig())
    found = real_peak(model, batch, make_optimizer(model, AdamWConfig()))
    predicted = max(trace.peak, trace.gradients + trace.update_peak - trace.state)
    # gates have no values, so the experts' shares are equal
    assert predicted == pytest.approx(found, rel=0.06 if "feed_forward" in options else 0.01)


def test_operations_and_sizes_are_those_by_hand():
    """A Transformer's products: 24 D² a token and layer, and 4 L D for attention, forward; twice
    as many backward. State: two numbers for each weight that has a gradient."""
    model = model_of()
    batch = random_batch("classify", LENGTHS["classify"], model.config)
    trace = trace_step(model, batch, AdamWConfig())
    tokens, width, length = 6 * 24, 128, 24
    layer = 2 * tokens * (4 * width**2 + 2 * width * 256) + 4 * tokens * length * width
    forward = {one: n * one.flops for one, n in trace.operations.items() if one.phase == "forward"}
    head = 2 * 6 * (width * width + width * 3)
    assert sum(forward.values()) == 3 * layer + head
    assert sum(flops for one, flops in forward.items() if one.in_block) == 3 * layer
    active = [model.get_parameter(name) for name in model.active_parameters("classify")]
    assert trace.gradients == 4 * sum(p.numel() for p in active)
    assert trace.state == pytest.approx(2 * trace.gradients, rel=1e-3)  # and step counts
    assert trace.parameters >= 4 * model.count_parameters()


def test_the_model_is_left_as_it_was():
    model = model_of()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    trace_step(model, random_batch("classify", [[8]] * 2, model.config), MuonConfig())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_deeper_models_are_extrapolated_exactly():
    def trace(layers):
        config = tiny_config(width=32, encoder={"layers": layers, "heads": 2})
        with meta_device():
            model = Model(config)
        batch = batch_of("classify", [[12]] * 3, config)
        return trace_step(model, batch, AdamWConfig(), fused_attention=True)

    found, whole = deeper(trace(1), trace(2), 3), trace(4)
    for field in fields(StepTrace):
        if field.name != "operations":
            assert getattr(found, field.name) == getattr(whole, field.name), field.name
    assert found.flops == whole.flops


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_fused_attention_keeps_no_probabilities(precision):
    config = tiny_config(width=32, encoder={"heads": 4, "attention_dropout": 0.1})
    with meta_device():
        model = Model(config)
    batch = random_batch("classify", [[32]] * 4, config)
    plain, fused = (
        trace_step(model, batch, precision=precision, fused_attention=one) for one in (False, True)
    )
    probabilities = 2 * 4 * 4 * 32 * 32  # layers, samples, heads; of one byte at least
    assert plain.kept - fused.kept >= probabilities


@pytest.mark.parametrize("name", ["text_to_video", "speech_recognition", "reading_comprehension"])
def test_samples_are_made_up_without_data(name):
    assert name in SOURCES
    given = recipe(name)
    data = given.tasks[name].data.model_copy(update={"path": "absent.jsonl"})
    task = given.tasks[name].model_copy(update={"data": data})
    largest = LargestBatches(given.model_copy(update={"tasks": {name: task}}))
    batch = largest.batch(name, 3)
    assert len(batch) == 3
    streams = largest.recipe.model.streams
    lengths = [span.length for span in batch.layout.spans]
    most = [getattr(streams, s.modality.value).max_length for s in batch.layout.spans]
    # two texts of a pair share the room of one
    assert sum(lengths) >= most[0] if name == "reading_comprehension" else lengths == most
    with meta_device():
        model = Model(largest.recipe.model, dict(largest.recipe.assets))
    assert model.config.streams.text is None or model.config.streams.text.vocabulary == 600
    assert trace_step(model, batch).peak > 0

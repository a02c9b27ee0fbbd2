"""Sketches preserve inner products, the tracker estimates the exact value, and a resumed run
continues with the same numbers."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from tiny import random_batch, tiny_config, tiny_model
from torch import nn
from training_recipes import recipe

from skillweave.analysis.blocks import find_blocks
from skillweave.analysis.interference import interference
from skillweave.config import ConfigError
from skillweave.config.training import InterferenceConfig
from skillweave.training import train
from skillweave.training.interference_tracker import MOMENTUM, InterferenceTracker, Sketch
from skillweave.training.run_folder import require_free

BLOCK = "encoder.blocks.0.feed_forward"
BOTH = ("text_classification", "text_to_image")


def test_inner_products_of_sketches_are_unbiased_and_err_as_said():
    size, dimension, draws = 300, 64, 400
    x, y = nn.functional.normalize(torch.randn(2, size, dtype=torch.float64))
    y = nn.functional.normalize(x + y, dim=0)
    parameters = [
        nn.Parameter(torch.zeros(100, 2, dtype=torch.float64)),
        nn.Parameter(torch.zeros(100, dtype=torch.float64)),
    ]
    generator = torch.Generator().manual_seed(1)
    products = []
    for _ in range(draws):
        sketch, found = Sketch(parameters, dimension, generator), []
        for vector in (x, y):
            parameters[0].grad, parameters[1].grad = vector[:200].view(100, 2), vector[200:]
            numbers, norm = sketch()
            assert numbers.shape == (dimension,) and norm.item() == pytest.approx(1)
            found.append(numbers)
        products.append(float(found[0] @ found[1]))
    errors = torch.tensor(products) - float(x @ y)
    deviation = (2 / dimension) ** 0.5
    assert abs(errors.mean()) < 4 * deviation / draws**0.5  # four standard errors
    assert errors.square().mean().sqrt() < deviation


@pytest.fixture(scope="module")
def seen():
    """A model, and batches of two tasks."""
    torch.manual_seed(1)  # the effect of a task on itself, the divisor, is not near zero
    config = tiny_config()
    spans = {"classify": [5], "to_code": [5, 5]}
    batches = {
        t: [replace(random_batch(t, [sizes] * 12, config), keys=()) for _ in range(40)]
        for t, sizes in spans.items()
    }
    return tiny_model(config), batches


def steps(model, batches):
    """Yield the batches in turn, each with its gradients computed."""
    for step, batch in enumerate(
        batch for pair in zip(*batches.values(), strict=True) for batch in pair
    ):
        model.zero_grad()
        model(batch).loss.backward()
        yield step, batch.layout.task
    model.zero_grad()


def follow(model, batches, dimension):
    tracker = InterferenceTracker(
        model, InterferenceConfig(every=1, dimension=dimension, blocks=[BLOCK]), list(batches)
    )
    for step, task in steps(model, batches):
        tracker.observe(step, task)
    return tracker.estimates()[BLOCK]


def weighted(values):
    weights = [MOMENTUM**age for age in reversed(range(len(values)))]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def follow_plainly(model, batches, i, j):
    """The same running means, of whole gradients: the effect of j and of i itself on i, and the size
    to which errors of products are proportional."""
    names = find_blocks(model, [BLOCK])[BLOCK]
    directions, gains, scales = {i: [], j: []}, {i: [], j: []}, []
    for _, task in steps(model, batches):
        gradient = torch.cat([model.get_parameter(name).grad.flatten() for name in names])
        if task == i and all(directions.values()):
            means = {other: weighted(found) for other, found in directions.items()}
            for other, mean in means.items():
                gains[other].append(mean @ gradient)
            scales.append(max(mean.norm() for mean in means.values()) * gradient)
        directions[task].append(gradient / gradient.norm())
    return float(weighted(gains[j])), float(weighted(gains[i])), float(weighted(scales).norm())


def test_the_tracker_agrees_with_the_exact_figure_and_with_whole_gradients(seen):
    model, batches = seen
    exact = interference(model, batches, [BLOCK])
    found = {dimension: follow(model, batches, dimension) for dimension in (256, 4096)}
    for i, j in (("classify", "to_code"), ("to_code", "classify")):
        low, high = exact.pooled_intervals[0, exact.tasks.index(i), exact.tasks.index(j)]
        theirs, own, scale = follow_plainly(model, batches, i, j)
        for dimension, estimates in found.items():
            # standard deviation of a ratio of two products of sketches
            deviation = (2 / dimension) ** 0.5 * scale / own * (1 + abs(theirs / own))
            assert abs(estimates[i][j] - theirs / own) < 2 * deviation
            # Running means use about half as many batches, so the bound is the interval's width
            # instead of half of it.
            assert (
                abs(estimates[i][j] - exact.pooled[0, exact.tasks.index(i), exact.tasks.index(j)])
                < high - low + 2 * deviation
            )


def test_gradients_that_are_not_finite_leave_no_trace(seen):
    model, batches = seen
    tracker = InterferenceTracker(model, InterferenceConfig(every=2), list(batches))
    for step, task in steps(model, {task: found[:4] for task, found in batches.items()}):
        model.get_parameter(f"{BLOCK}.experts.shared.inner.bias").grad[0] = (
            float("nan") if step % 2 == 0 else 0.0
        )
        tracker.observe(step, task)
    assert not tracker.estimates() and not any(tensor.any() for tensor in tracker.state.values())


def lines(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == "interference"]


def test_a_resumed_run_goes_on_with_the_same_numbers_and_weights_stay_the_same(tmp_path):
    settings = {"steps": 8, "log_every": 2, "checkpoint_every": 3, "save_total_limit": 9}
    tracked = settings | {"interference": {"every": 1, "dimension": 8}}
    whole, plain = (
        train(recipe(tmp_path / name, BOTH, **s), quiet=True)
        for name, s in (("w", tracked), ("p", settings))
    )
    assert (whole / "last" / "model.safetensors").read_bytes() == (
        plain / "last" / "model.safetensors"
    ).read_bytes()
    expected = lines(whole)
    assert {line["task"] for line in expected} == set(BOTH) and not lines(plain)
    for name in ("step-00000006", "step-00000008"):
        shutil.rmtree(whole / "checkpoints" / name)
    assert lines(train(recipe(whole, BOTH, **tracked), resume=True, quiet=True)) == expected


@pytest.mark.parametrize(
    ("tasks", "blocks", "told"),
    [
        (BOTH[:1], [], "compares tasks, but this run has one"),
        (BOTH, ["encoder.blocks.0.atention"], "did you mean 'encoder.blocks.0.attention'"),
        (BOTH, ["embeddings.image"], "no parameter of embeddings.image is shared by all tasks"),
    ],
)
def test_faults_are_told_before_training(tmp_path, tasks, blocks, told):
    with pytest.raises(ConfigError, match=told):
        train(recipe(tmp_path / "run", tasks, interference={"blocks": blocks}), quiet=True)
    require_free(tmp_path / "run")

"""Interference against a plain loop over eq. 1-2, against steps really taken, and what is left
out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import random_batch, tiny_config, tiny_model

from skillweave.analysis.blocks import find_blocks, usual_layers
from skillweave.analysis.interference import interference
from skillweave.config import ConfigError

TASKS = ("classify", "to_image", "masked_sound")
BLOCKS = ("encoder.blocks.0.attention", "encoder.blocks.1.feed_forward")


def batches_of(task, count, config):
    """Batches of 3, 4, 5, 3, ... samples, without keys."""
    spans = [5, config.streams.image.max_length] if task == "to_image" else [5]
    return [
        replace(random_batch(task, [spans] * (3 + n % 3), config), keys=()) for n in range(count)
    ]


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    config = tiny_config()
    return tiny_model(config), {task: batches_of(task, 4, config) for task in TASKS}


def gradient(model, batch, names):
    model.zero_grad(set_to_none=True)
    model(batch).loss.backward()
    found = torch.cat([model.get_parameter(name).grad.flatten() for name in names])
    model.zero_grad(set_to_none=True)
    return found


def by_the_book(model, batches, block, i, j):
    """Eq. 1-2 for one pair of tasks: I_ij and the ratio of means."""
    names = [
        n
        for n in model.active_parameters(i)
        if n in model.active_parameters(j) and n.startswith(block + ".")
    ]
    if not names:
        return float("nan"), float("nan")
    g = {task: [gradient(model, batch, names) for batch in batches[task]] for task in (i, j)}

    def change(other, x):
        pairs = [y for y in range(len(g[other])) if other != i or y != x]
        return float(
            torch.stack([g[other][y] / g[other][y].norm() @ g[i][x] for y in pairs]).mean()
        )

    theirs, own = ([change(task, x) for x in range(len(g[i]))] for task in (j, i))
    return np.mean([a / b for a, b in zip(theirs, own, strict=True)]), sum(theirs) / sum(own)


def test_the_figures_are_those_of_the_paper(setting):
    model, batches = setting
    table = interference(model, batches, BLOCKS, resamples=50)
    for b, block in enumerate(BLOCKS):
        for i in batches:
            for j in batches:
                value, pooled = by_the_book(model, batches, block, i, j)
                np.testing.assert_allclose(table[block, i, j], value, rtol=1e-6)
                place = b, table.tasks.index(i), table.tasks.index(j)
                np.testing.assert_allclose(table.pooled[place], pooled, rtol=1e-6)
    assert (table.intervals[..., 0] <= table.values).all() and (
        table.values <= table.intervals[..., 1]
    ).all()
    assert np.diagonal(table.values, axis1=1, axis2=2) == pytest.approx(1)
    text_expert_and_output = (12 * 36 + 36) + (12 * 12 + 12)
    assert table.shared[0, 0, 1] == text_expert_and_output and table.shared[0, 0, 2] == 12 * 12 + 12


def test_a_step_along_another_tasks_gradient_lowers_the_loss_as_predicted(setting):
    model, batches = setting
    block, small = BLOCKS[1], 1e-6
    names = find_blocks(model, [block])[block]
    parameters = [model.get_parameter(name) for name in names]

    def fall(x, y):
        direction = gradient(model, y, names)
        parts = (direction / direction.norm()).split([p.numel() for p in parameters])
        losses = []
        with torch.no_grad():
            for sign in (-1, 2, -1):  # there, to the other side, and back
                for parameter, part in zip(parameters, parts, strict=True):
                    parameter += sign * small * part.view_as(parameter)
                losses.append(model(x).loss.item())
        return losses[1] - losses[0]

    i, j = "classify", "to_image"
    ratios = []
    for n, x in enumerate(batches[i]):
        own = np.mean([fall(x, y) for m, y in enumerate(batches[i]) if m != n])
        ratios.append(np.mean([fall(x, y) for y in batches[j]]) / own)
    assert interference(model, batches, [block], resamples=0)[0, 0, 1] == pytest.approx(
        np.mean(ratios), rel=1e-3
    )


def test_model_and_gradients_stay_as_they_were(setting):
    model, batches = setting
    model.train()
    interference(model, batches, resamples=0)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_batches_of_the_same_samples_count_once(setting):
    model, batches = setting
    named = {
        t: [replace(batch, keys=(f"{t}{n}",)) for n, batch in enumerate(found)]
        for t, found in batches.items()
    }
    once = interference(model, named, resamples=0)
    twice = interference(model, named | {"classify": named["classify"] * 2}, resamples=0)
    np.testing.assert_array_equal(once.values, twice.values)
    assert (
        twice.left_out == {"classify": 4, "to_image": 0, "masked_sound": 0}
        and twice.batches["classify"] == 4
    )
    assert "classify: 4 of 8 batches left out" in twice.notes
    with pytest.raises(ConfigError, match="'classify': 1 usable batches"):
        interference(model, named | {"classify": named["classify"][:1] * 3}, resamples=0)


def test_tasks_that_share_nothing_have_no_figure(setting):
    model, batches = setting
    table = interference(model, batches, ["encoder.blocks.0.attention.qkv"], resamples=10)
    assert np.isnan(table[0, "classify", "masked_sound"]) and np.isfinite(
        table[0, "classify", "to_image"]
    )
    assert (
        "encoder.blocks.0.attention.qkv: classify and masked_sound share no trainable parameter"
        in table.notes
    )
    assert table.to_json()["blocks"][0]["values"][0][2] is None


def test_faults_are_told(setting):
    model, batches = setting
    with pytest.raises(ConfigError, match="two or more, not classify"):
        interference(model, {"classify": batches["classify"]})
    with pytest.raises(ConfigError, match=r"did you mean 'encoder.blocks.1.feed_forward'"):
        interference(model, batches, ["encoder.blocks.1.feedforward"])
    with pytest.raises(ConfigError, match="no layer 2; the 2 layers"):
        interference(model, batches, ["2"])
    with pytest.raises(ConfigError, match="'to_image' were given as those of 'classify'"):
        interference(model, batches | {"classify": batches["to_image"]})


def test_blocks_are_found_by_part_number_and_path(setting):
    model, _ = setting
    assert list(find_blocks(model)) == [
        "encoder.blocks.0.feed_forward",
        "encoder.blocks.1.feed_forward",
    ]
    assert list(find_blocks(model, ["1", "attention"])) == [
        "encoder.blocks.1.feed_forward",
        "encoder.blocks.0.attention",
        "encoder.blocks.1.attention",
    ]
    assert (
        usual_layers(12) == [3, 11]
        and usual_layers(4) == [0, 3]
        and usual_layers(1) == [0]
        and usual_layers(24) == [7, 23]
    )

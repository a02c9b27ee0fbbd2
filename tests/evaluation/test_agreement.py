"""Comparing two models' answers."""

import copy
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_model
from tiny_run import make_run

from skillweave.config import ConfigError
from skillweave.evaluation.agreement import SAMPLES, comparison_batches, differences, real_batch
from skillweave.inference import open_run


def test_a_difference_is_a_share_of_the_largest_logit(tmp_path) -> None:
    model = tiny_model(dtype=torch.float32)
    batches, what = comparison_batches(model, tmp_path)
    assert "not a run folder" in what and {batch.layout.task for batch in batches} == set(
        model.config.tasks
    )
    assert all(len(batch) == SAMPLES for batch in batches)
    other = copy.deepcopy(model)
    assert set(differences(model, other, batches).values()) == {0.0}
    with torch.no_grad():
        other.targets["classification"].classifier.bias[0] += 0.5
    found = differences(model, other, batches)
    batch = next(batch for batch in batches if batch.layout.task == "classify")
    with torch.no_grad():
        largest = model(batch).logits["classification"].abs().max().item()
    assert found.pop("classify") == pytest.approx(0.5 / largest, rel=1e-4)
    assert set(found.values()) == {0.0}


def test_a_model_without_tasks_cannot_be_compared(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no task"):
        comparison_batches(tiny_model(tiny_config(tasks={})), tmp_path)


def test_real_batches_come_from_validation_or_else_from_test(tmp_path) -> None:
    run = make_run(tmp_path)
    _, recipe = open_run(run)
    batch, split = real_batch(recipe, "text_to_code", 4)
    assert split == "validation" and len(batch) == 4
    file = recipe.recipe.tasks["text_to_code"].data.path
    rows = [
        line for line in Path(file).read_text("utf-8").splitlines() if '"validation"' not in line
    ]
    Path(file).write_text("\n".join(rows), "utf-8")
    assert real_batch(recipe, "text_to_code", 9)[1] == "test"
    Path(file).unlink()
    with pytest.raises(ConfigError, match="no validation or test sample can be read"):
        real_batch(recipe, "text_to_code", 4)

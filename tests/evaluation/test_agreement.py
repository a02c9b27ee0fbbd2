"""Comparing two models' answers."""

import copy

import pytest
import torch
from tiny import tiny_config, tiny_model

from skillweave.config import ConfigError
from skillweave.evaluation.agreement import SAMPLES, comparison_batches, differences


def test_a_difference_is_a_share_of_the_largest_logit(tmp_path) -> None:
    model = tiny_model(dtype=torch.float32)
    batches, what = comparison_batches(model, tmp_path)
    assert "not a run folder" in what and {batch.layout.task for batch in batches} == set(model.config.tasks)
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

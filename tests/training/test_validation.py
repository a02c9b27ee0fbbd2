"""The loss of a validation."""

import pytest
import torch
from training_recipes import DATA, recipe

from skillweave.model.model import Model
from skillweave.tasks.resolve import resolve
from skillweave.training.validation import Validation


@pytest.mark.parametrize("task", ["masked_text", "masked_text_pair"])
def test_the_loss_does_not_depend_on_the_batch_size(tmp_path, monkeypatch, task):
    monkeypatch.setitem(DATA, task, {"path": "pack:poems", "limit": 40})
    losses = []
    for batch_size in (2, 7):
        found = recipe(tmp_path, (task,))
        tasks = {task: found.tasks[task].model_copy(update={"batch_size": batch_size})}
        run = resolve(found.model_copy(update={"tasks": tasks}))
        torch.manual_seed(0)
        model = Model(run.model, run.assets).double().eval()
        validate = Validation({task: run.dataset(task, "validation")}, samples=256)
        losses.append(validate(model).results[task]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)

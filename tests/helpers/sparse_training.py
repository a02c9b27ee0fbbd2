"""Updates of a real sparse model on a mixture of tasks, for tests of several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from stand_ins import tiny_recipe
from tiny import labelled, random_examples
from torch import Tensor

from skillweave.batch import Batch, Example
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.training.tensor_parts import is_divided
from skillweave.training.trainer import Trainer

LENGTHS = {
    "classify": ((3,), (7,)),
    "transcribe": ((4,), (9,)),
    "to_image": ((5, 5), (3, 5)),
    "masked_code": ((4, 2), (9, 5)),
    "denoising": ((8, 3, 5), (8, 4, 6)),
}


def whole_tensor(x: Any) -> Tensor:
    """Gathered from all processes, which all call it."""
    return x.full_tensor() if is_divided(x) else x


def recipe_of(folder: Path, **training: Any) -> RecipeConfig:
    """A recipe of these tasks."""
    recipe = tiny_recipe(folder, **training)
    tasks = dict.fromkeys(LENGTHS, next(iter(recipe.tasks.values())))
    return recipe.model_copy(update={"tasks": tasks})


def examples_of(name: str, model: Model, *numbers: int) -> list[Example]:
    """Labelled examples of a task, drawn from some numbers."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
    examples = random_examples(name, LENGTHS[name], model.config)
    return labelled(name, examples, np.random.default_rng(numbers))


def update(trainer: Trainer, batches: list[Batch]) -> tuple[float, float, set[str]]:
    """One update; its loss, the norm of its gradients, and the parameters that had one."""
    loss, norm, _ = trainer.backward(iter(batches))
    active = {name for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.optimizer.step()
    trainer.schedule.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    return float(loss), float(norm), active

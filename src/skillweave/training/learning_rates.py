"""The learning rate finder (Smith 2017, arXiv 1506.01186): the rate grows from step to step until
the loss explodes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.data.mixture import Mixture
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolved
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.parallel import make_fabric
from skillweave.training.progress import ProgressDisplay
from skillweave.training.run import build_model, prepare, recompute_of
from skillweave.training.run_logger import RunLogger
from skillweave.training.seeds import seed_dropout
from skillweave.training.trainer import Trainer
from skillweave.training.validation import ValidationResult

SMOOTHING = 0.9
"""Decay of the running mean of the losses."""
EXPLODED = 2.0
"""The search ends when the loss is so many times the smallest one."""
SAFETY = 10.0
"""The suggestion is at most the rate of the smallest loss divided by this."""


@dataclass(frozen=True)
class RateSearch:
    """`rates`, and the `losses` with them: smoothed, and as a share of each task's first loss.
    `suggestion`: where the loss falls fastest."""

    rates: list[float]
    losses: list[float]
    suggestion: float

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        points = [
            {"learning_rate": rate, "loss": loss}
            for rate, loss in zip(self.rates, self.losses, strict=True)
        ]
        return {"suggestion": self.suggestion, "points": points}


def find_learning_rate(
    recipe: RecipeConfig,
    least: float = 1e-7,
    most: float = 1.0,
    steps: int = 100,
    progress: Callable[[str, int, int], None] | None = None,
) -> RateSearch:
    """Train a recipe for at most `steps` steps with rates from `least` to `most`, each the same
    factor larger than the one before it. Nothing is stored.

    With several tasks, each loss counts as a share of the task's first one. Raises ConfigError for
    rates that do not grow, and as `train` does.
    """
    if not 0 < least < most or steps < 10:
        raise ConfigError(
            f"rates from {least:g} to {most:g} in {steps} steps: give 0 < least < most, and at"
            " least 10 steps"
        )
    with tempfile.TemporaryDirectory(prefix="skillweave-lr-") as folder:
        training = recipe.training.model_copy(
            update={"steps": steps, "epochs": None, "samples": None, "devices": 1, "track": []}
        )
        changed = {"output": str(Path(folder) / "run"), "training": training}
        trainer = _trainer(recipe.model_copy(update=changed))
        batches, factor = trainer.batches(), (most / least) ** (1 / (steps - 1))
        rates: list[float] = []
        losses: list[float] = []
        first: dict[str, float] = {}
        mean = 0.0
        for step in range(steps):
            rate = least * factor**step
            seed_dropout(training.seed, step, 0)
            loss, _, seen = trainer.backward(batches)
            trainer.state.step = step + 1
            value = float(loss)
            share = value / first.setdefault(seen[0].layout.task, value or 1.0)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * share
            smoothed = mean / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(value) or (losses and smoothed > EXPLODED * min(losses)):
                break
            rates.append(rate)
            losses.append(smoothed)
            for group in trainer.optimizer.param_groups:
                group["lr"] = rate
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
            if progress:
                progress("steps", step + 1, steps)
        if progress:
            progress("steps", steps, steps)
    return RateSearch(rates, losses, suggest(rates, losses))


def suggest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest with the logarithm of the rate, but at most a tenth
    of that of the smallest loss. Raises ConfigError for too few points, and if the loss never
    falls."""
    if len(rates) < 5:
        raise ConfigError(
            f"the loss exploded after {len(rates)} steps; begin with a smaller rate (--from)"
        )
    smallest = min(range(len(losses)), key=losses.__getitem__)
    slopes = [losses[i + 1] - losses[i - 1] for i in range(1, max(smallest, 2))]
    if min(slopes) >= 0:
        raise ConfigError(
            f"the loss does not fall with rates from {rates[0]:g} to {rates[-1]:g}; search in other"
            " rates (--from, --to), or with more steps"
        )
    steepest = 1 + min(range(len(slopes)), key=slopes.__getitem__)
    return max(rates[0], min(rates[steepest], rates[smallest] / SAFETY))


def _trainer(recipe: RecipeConfig) -> Trainer:
    """A trainer that keeps nothing."""
    ready = prepare(recipe, resume=False)
    fabric = make_fabric(ready.recipe.training)
    fabric.launch()
    tasks, config = resolved(ready.recipe, ready.assets), ready.recipe.training
    datasets = {name: tasks.dataset(name, "train", training=True) for name in ready.recipe.tasks}
    mixture = Mixture(datasets, config, ready.recipe.tasks)
    display = ProgressDisplay(mixture.steps, quiet=True)
    model, tuning = build_model(ready.recipe, ready.assets, None, display)
    model.recompute_activations(recompute_of(config))
    model.train()
    state, folder = TrainingState(seed=config.seed), ready.recipe.folder
    logger = RunLogger(None, display, config.log_every, state)
    checkpoints = Checkpoints(folder)
    return Trainer(
        fabric, ready.recipe, model, mixture, _no_validation, checkpoints, logger, state, tuning
    )


def _no_validation(model: Any) -> ValidationResult:
    return ValidationResult({}, [], [])

"""The Trainer's overhead over a bare loop of the same step.

    python benchmarks/training/trainer_overhead.py [--json FILE] [--steps 40] [--threads 1] [--quick]

The quickstart's five tasks. A step of `skillweave.training.Trainer` (agreement of processes, seeds,
schedule, logs, progress) alternates with a bare loop's: forward, backward, clipping, AdamW. Both
begin from equal weights and train on the same batches, which are made before; their losses must
agree at every step. The overhead is the median of the ratios of neighbouring steps.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1]))
from report import Figure, report
from rich.progress import track
from side_by_side import read_options

from skillweave.batch import Batch
from skillweave.data.mixture import Mixture
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig, find_recipe, read_recipe
from skillweave.tasks.resolve import resolve
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.optimizer import make_optimizer, make_schedule
from skillweave.training.parallel import make_fabric
from skillweave.training.progress import ProgressDisplay
from skillweave.training.run_logger import RunLogger
from skillweave.training.trainer import Trainer

MOST = 0.02
"""Largest overhead, as a share of the bare loop's step."""
AGREE = 1e-5
"""Largest relative difference of two losses."""


class BareLoop:
    """What a step cannot do without."""

    def __init__(self, model: Model, config: Any, steps: int) -> None:
        self.model, self.config = model.train(), config
        self.optimizer = make_optimizer(model, config.optimizer)
        self.schedule = make_schedule(self.optimizer, config.optimizer, steps, 0)

    def step(self, batch: Batch) -> float:
        """One update; its loss."""
        loss = self.model(batch, loss_only=True).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


@contextmanager
def open_trainer(
    recipe: RecipeConfig, model: Model, mixture: Any, folder: Path
) -> Iterator[tuple[Trainer, list[float]]]:
    """A Trainer that logs into `folder`, and the losses that it logs."""
    config, seen = recipe.training, []
    folder.mkdir()
    state = TrainingState(seed=config.seed)
    display = ProgressDisplay(mixture.steps, quiet=True)
    with RunLogger(folder, display, config.log_every, state) as logger:
        log = logger.log_step

        def watched(step: int, losses: dict[str, float], *more: Any) -> None:
            seen.extend(losses.values())
            log(step, losses, *more)

        logger.log_step = watched  # ty: ignore[invalid-assignment] to see the losses
        yield (
            Trainer(
                make_fabric(config),
                recipe,
                model,
                mixture,
                lambda _: ({}, [], []),
                Checkpoints(folder),
                logger,
                state,
            ),
            seen,
        )


def measure(steps: int, folder: Path, overrides: list[str]) -> Iterator[tuple[float, float, float]]:
    """Seconds of the Trainer's step and of the bare one, and the difference of their losses."""
    settings = [
        f"output={folder}",
        f"training.steps={steps}",
        "training.accelerator=cpu",
        "training.log_every=10",
        *overrides,
    ]
    ready = resolve(read_recipe(find_recipe("scratch"), settings))
    recipe, config = ready.recipe, ready.recipe.training
    datasets = {name: ready.dataset(name, "train", training=True) for name in recipe.tasks}
    mixture = Mixture(datasets, config, recipe.tasks)
    model = Model(recipe.model, dict(ready.assets))
    bare = BareLoop(copy.deepcopy(model), config, steps)
    with open_trainer(recipe, model, mixture, folder) as (trainer, seen):
        trainer.model.train()
        for number in track(range(steps), "steps", transient=True):
            batch = mixture[number]
            seconds = {}
            for side in ("ours", "bare") if number % 2 else ("bare", "ours"):
                start = time.perf_counter()
                if side == "ours":
                    trainer.update(iter([batch]))
                else:
                    loss = bare.step(batch)
                seconds[side] = time.perf_counter() - start
            yield seconds["ours"], seconds["bare"], abs(seen[-1] / loss - 1)


def main() -> int:
    """Measure and report."""
    options = read_options(__doc__)
    torch.manual_seed(0)
    quick = ["model.width=48", "model.encoder.layers=1", "model.encoder.feed_forward=96"]
    with tempfile.TemporaryDirectory() as folder:
        steps = list(
            measure(max(options.steps, 3) + 1, Path(folder) / "run", quick if options.quick else [])
        )[1:]
    overhead = statistics.median(ours / bare for ours, bare, _ in steps) - 1
    difference = max(found for *_, found in steps)
    milliseconds = 1000 * statistics.median(bare for _, bare, _ in steps)
    most = float("inf") if options.quick else MOST
    figures = [
        Figure("the Trainer's overhead", overhead, "of a bare step, at most", most, overhead < most),
        Figure("difference of the losses", difference, "relative, at most", AGREE,
               difference < AGREE),
    ]  # fmt: skip
    title = (
        f"a bare step: {milliseconds:.1f} ms (median of {len(steps)}), {options.threads} threads"
    )
    return report(title, figures, options.json)


if __name__ == "__main__":
    sys.exit(main())

"""The loop: draw a task's micro-batches, go forward and back, clip, step; validate, save, stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from skillweave.batch import Batch
from skillweave.data.mixture import Mixture
from skillweave.metrics import summary_score
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.training.checkpoint import Checkpoints, State
from skillweave.training.errors import TrainingError
from skillweave.training.journal import Journal
from skillweave.training.optimizer import (
    learning_rate,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from skillweave.training.parallel import StopRequest, gather, ignore_signals, route_noise, seed_step
from skillweave.training.tracking import Tracker
from skillweave.training.tuning import Tuning
from skillweave.training.validation import Validated

OPTIMIZER_FILE, TRACKING_FILE = "optimizer.safetensors", "interference.safetensors"

Validate = Callable[[Model], Validated]
"""Measures the model as it is. Every process calls it alike."""


class Losses(nn.Module):
    """A model reduced to its loss: whatever else it returns must not make DDP wait for gradients
    that never come."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The batch's loss, a scalar."""
        return self.model(batch, generator=generator).loss


class Update(NamedTuple):
    """What all processes agree on about an update."""

    loss: float
    norm: float
    samples: int
    finite: bool
    stop: int
    keys: list[str]


class Trainer:
    """One process's part of a run."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: RecipeConfig,
        model: Model,
        mixture: Mixture,
        validate: Validate,
        checkpoints: Checkpoints,
        journal: Journal,
        state: State,
        tuning: Tuning | None = None,
    ) -> None:
        """Wraps `model` for the devices; goes on from `state`, whose weights `model` already has.

        `tuning`: what saves the part of it that is trained; None where that is all of it.
        """
        self.fabric, self.recipe, self.config = fabric, recipe, recipe.training
        self.model, self.mixture, self.validate = model.to(fabric.device), mixture, validate
        self.checkpoints, self.journal, self.state, self.tuning = (
            checkpoints,
            journal,
            state,
            tuning,
        )
        self.steps = mixture.steps
        self.bare_optimizer = make_optimizer(self.model, self.config.optimizer)
        tracking = self.config.interference
        self.tracker = Tracker(self.model, tracking, list(recipe.tasks)) if tracking else None
        if state.step:
            folder = checkpoints.path(state.step)
            load_optimizer_tensors(
                self.bare_optimizer, self.model, load_file(folder / OPTIMIZER_FILE)
            )
            if self.tracker:
                self.tracker.load(load_file(folder / TRACKING_FILE))
        self.losses, self.optimizer = fabric.setup(Losses(self.model), self.bare_optimizer)
        self.stop = StopRequest()

    def fit(self) -> int:
        """Train to the end: 0, or the number of the signal that ended the run early.

        Raises TrainingError when losses stay non-finite or a checkpoint cannot be written.
        """
        self.model.train()
        batches = self.batches()
        while self.state.step < self.steps:
            signal = self.update(batches)
            last = self.state.step == self.steps
            improved = self.due(self.config.validate_every, last) and self.validation()
            if improved or signal or self.due(self.config.checkpoint_every, last):
                self.save()
            if signal and not last:
                return signal
        return 0

    def batches(self) -> Iterator[Batch]:
        """The micro-batches that are left, in order, whatever the number of workers."""
        start, workers = self.state.step * self.config.accumulate, self.config.workers
        loader = DataLoader(
            self.mixture,
            batch_size=None,
            sampler=range(start, self.steps * self.config.accumulate),
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=ignore_signals,
        )
        return iter(loader)

    def update(self, batches: Iterator[Batch]) -> int:
        """One step; the number of the signal that asks to stop, or 0."""
        done, task = self.state.step, self.mixture.task_of(self.state.step)
        seed_step(self.config.seed, done, self.fabric.global_rank)
        outcome = self.agree(*self.backward(batches))
        self.state.step = step = done + 1
        self.state.samples[task] = self.state.samples.get(task, 0) + outcome.samples
        if outcome.finite:
            rate = learning_rate(done, self.steps, self.config.optimizer)
            set_learning_rate(self.bare_optimizer, rate)
            self.optimizer.step()
            self.state.nonfinite = 0
            self.journal.trained(
                step, task, outcome.loss, outcome.samples, rate, last=step == self.steps
            )
        else:
            self.state.nonfinite += 1
            self.journal.nonfinite(step, task, outcome.loss, outcome.norm, outcome.keys)
        if self.tracker and self.due(self.config.log_every, step == self.steps):
            self.journal.interference(step, self.tracker.estimates())
        self.optimizer.zero_grad(set_to_none=True)
        if self.state.nonfinite >= self.config.max_nonfinite:
            raise TrainingError(self.diverged(task, outcome))
        return outcome.stop

    def backward(self, batches: Iterator[Batch]) -> tuple[Tensor, Tensor, list[Batch]]:
        """Gradients of one update: its mean loss, the gradient's norm before clipping, and its
        micro-batches."""
        noise = route_noise(self.config.seed, self.state.step)
        total, seen = torch.zeros((), device=self.fabric.device), []
        for left in reversed(range(self.config.accumulate)):
            batch = self.journal.waiting(batches)
            with self.fabric.no_backward_sync(self.losses, enabled=left > 0):
                loss = self.losses(batch.to(self.fabric.device), noise) / self.config.accumulate
                self.fabric.backward(loss)
            total += loss.detach()
            seen.append(batch)
        if self.tracker:
            self.tracker.observe(self.state.step, self.mixture.task_of(self.state.step))
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.optimizer.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self.model.parameters(), self.config.optimizer.clip, norm
            )
        return total, norm, seen

    def agree(self, loss: Tensor, norm: Tensor, batches: list[Batch]) -> Update:
        """Share losses, counts, skips and stop requests among the processes, so that all of them do
        the same."""
        numbers = [
            *torch.stack([loss, norm]).tolist(),
            sum(len(batch) for batch in batches),
            self.stop.signal,
        ]
        skips = [skip for batch in batches for skip in batch.skipped]
        keys = (
            []
            if all(map(math.isfinite, numbers))
            else [key for batch in batches for key in batch.keys]
        )
        shared = gather(self.fabric, (numbers, skips, keys))
        losses, norms, samples, signals = zip(*(numbers for numbers, _, _ in shared), strict=True)
        self.journal.skipped(
            self.state.step + 1, [skip for _, skips, _ in shared for skip in skips]
        )
        finite = all(map(math.isfinite, losses + norms))
        all_keys = [key for _, _, keys in shared for key in keys]
        return Update(
            sum(losses) / len(losses), norms[0], sum(samples), finite, max(signals), all_keys
        )

    def due(self, every: int, last: bool) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return last or bool(every and self.state.step % every == 0)

    def validation(self) -> bool:
        """Validate every task; whether the mean of their scores is the best so far."""
        self.model.eval()
        with torch.no_grad(), self.fabric.autocast():
            results, skips, uses = self.fabric.broadcast(self.validate(self.model))
        self.model.train()
        self.journal.skipped(self.state.step, skips)
        self.journal.experts(self.state.step, uses)
        if not results:
            return False
        value = sum(summary_score(metrics) for metrics in results.values()) / len(results)
        best = math.isfinite(value) and (
            self.state.best_value is None or value > self.state.best_value
        )
        if best:
            self.state.best_step, self.state.best_value = self.state.step, value
        self.journal.validated(self.state.step, results, value, best)
        return best

    def save(self) -> None:
        """Write a checkpoint on the first process; all of them learn of a failure. Raises
        TrainingError."""
        self.state.progress = self.journal.state
        failure = ""
        if self.fabric.is_global_zero:
            try:
                self.checkpoints.save(self.state, self.write)
            except TrainingError as error:
                failure = str(error)
        failure = self.fabric.broadcast(failure)
        if failure:
            raise TrainingError(failure)

    def write(self, folder: Path) -> None:
        """Put the model or what tuning changes of it, the optimiser and what tracking knows into a
        folder."""
        if self.tuning:
            self.tuning.save(self.model, folder)
        else:
            self.model.save_pretrained(folder)
        save_file(optimizer_tensors(self.bare_optimizer, self.model), folder / OPTIMIZER_FILE)
        if self.tracker:
            save_file(self.tracker.state, folder / TRACKING_FILE)

    def diverged(self, task: str, outcome: Update) -> str:
        """What to say when losses stay non-finite."""
        return (
            f"{self.state.nonfinite} steps in a row without a finite loss and gradient, the last"
            f" was step {self.state.step} of task {task} with the samples"
            f" {', '.join(outcome.keys)}; look at these, or lower training.optimizer.learning_rate"
        )

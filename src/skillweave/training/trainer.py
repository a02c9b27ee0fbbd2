"""The training loop: forward, backward, clip, update; validate, save, stop."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed import ProcessGroup, new_group
from torch.utils.data import DataLoader

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.config.training import PREFETCH
from skillweave.data.mixture import Mixture
from skillweave.data.task_schedule import WeightChange
from skillweave.layers.peers import peers
from skillweave.metrics import summary_score
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.storage import remove
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.errors import TrainingError
from skillweave.training.interference_tracker import InterferenceTracker
from skillweave.training.loss_spikes import find_spikes
from skillweave.training.measuring import (
    PROFILE_FOLDER,
    StepProfiler,
    activated_parameters,
    component_of,
    memory_in_use,
)
from skillweave.training.mesh import Place
from skillweave.training.micro_batch import MicroBatch
from skillweave.training.optimizer import (
    OPTIMIZER_FILE,
    OPTIMIZER_FOLDER,
    load_optimizer_tensors,
    make_optimizer,
    make_schedule,
    optimizer_tensors,
    read_optimizer_tensors,
)
from skillweave.training.parallel import gather_objects, make_strategy
from skillweave.training.partial_tuning import PartialTuning, read_tuned
from skillweave.training.run_logger import NOTHING, RunLogger, Work, shorten
from skillweave.training.seeds import route_noise, seed_dropout
from skillweave.training.signals import StopRequest, ignore_signals
from skillweave.training.steering import Steering
from skillweave.training.strategy import trained_parameters
from skillweave.training.tensor_files import load_whole, save_together
from skillweave.training.tensor_parts import copied, divided_like
from skillweave.training.validation import ValidationResult
from skillweave.weights.files import FILE

TRACKER_FILE = "interference.safetensors"
MODEL_PARTS = "model"
"""Where a checkpoint has parts of the model while it is being written."""

Validate = Callable[[Model], ValidationResult]
"""Validates the model. All processes call it."""


class LossModule(nn.Module):
    """A model that returns only its loss, in the precision of the training."""

    def __init__(self, model: Model, chunk_sizes: Mapping[str, int] | None = None) -> None:
        """`chunk_sizes`: by task, see `Model.forward`."""
        super().__init__()
        self.model, self.chunk_sizes = model, chunk_sizes or {}

    def forward(
        self, batch: Batch, generator: torch.Generator, loss_scales: Mapping[str, float]
    ) -> Tensor:
        """The loss of the batch, a scalar. `loss_scales`: see `Model.forward`."""
        return self.model(
            batch,
            generator=generator,
            loss_scales=loss_scales,
            loss_only=True,
            chunk_size=self.chunk_sizes.get(batch.layout.task),
        ).loss


class LossTerms(NamedTuple):
    """How many terms the loss of each target is the mean of in a micro-batch of a task."""

    task: str
    terms: Mapping[str, int]


def loss_scales(own: LossTerms, update: Sequence[LossTerms]) -> dict[str, float]:
    """The factors of a micro-batch's losses that make the mean over the micro-batches of an update
    the loss of one large batch: each term then counts the same, whatever micro-batch it is in.

    `update`: all micro-batches of the update, on all processes.
    """
    scales = {}
    for target, count in own.terms.items():
        counts = [one.terms[target] for one in update if one.task == own.task]
        scales[target] = count * len(counts) / max(sum(counts), 1)
    return scales


class Update(NamedTuple):
    """Result of a step's forward and backward passes, equal on all processes. `losses`: mean over
    the processes that train each task. `norm`: of the gradients before clipping. `samples`: of each
    task. `imbalance`: positions of the process that has the most ÷ their mean over all processes.
    `stop`: number of a signal, or 0. `keys`: the samples, if loss or gradients are not `finite`.
    `work`: of all processes."""

    losses: dict[str, float]
    norm: float
    samples: Counter[str]
    imbalance: float
    finite: bool
    stop: int
    keys: list[str]
    work: Work = NOTHING


class Contents(NamedTuple):
    """The tensors of a checkpoint, by name: of the model or its tuned part, of the optimizer, and
    of the interference tracker."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    tracker: dict[str, Tensor]

    def copied(self) -> Contents:
        """A copy in the memory of the host."""
        return Contents(*({name: copied(x) for name, x in part.items()} for part in self))


class Trainer:
    """Trains a model on one process."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: RecipeConfig,
        model: Model,
        mixture: Mixture,
        validate: Validate,
        checkpoints: Checkpoints,
        logger: RunLogger,
        state: TrainingState,
        tuning: PartialTuning | None = None,
    ) -> None:
        """Continues from `state`; `model` must have the weights of the same checkpoint.

        `tuning`: saves the trained part of the model; None if the whole model is trained.
        """
        self.fabric, self.config, self.steps = fabric, recipe.training, mixture.steps
        self.model, self.mixture, self.validate = model.to(fabric.device), mixture, validate
        self._active: dict[str, set[str]] = {}
        self._counts: dict[str, int] = {}
        if not self.config.parallel.has_all_gradients:
            for task in recipe.tasks:  # while this process has all of the model
                self._active_parameters(task)
                self._activated(task)
        self.place = Place.of(fabric.global_rank, fabric.world_size, self.config.parallel)
        self.strategy = make_strategy(fabric, self.config.parallel, self.model, self._active)
        self.checkpoints, self.logger = checkpoints, logger
        self.state, self.tuning = state, tuning
        self.bare_optimizer = make_optimizer(self.model, self.config.optimizer)
        self.schedule = make_schedule(
            self.bare_optimizer, self.config.optimizer, self.steps, state.step
        )
        self.tracker: InterferenceTracker | None = None
        if self.config.interference:
            self.tracker = InterferenceTracker(
                self.model, self.config.interference, list(recipe.tasks)
            )
        if state.step:
            folder = checkpoints.path(state.step)
            self._load_optimizer(folder)
            if self.tracker:
                self.tracker.load(load_file(folder / TRACKER_FILE))
        chunk_sizes = {n: task.chunk_size for n, task in recipe.tasks.items() if task.chunk_size}
        if chunk_sizes and self.place.pipeline > 1:
            raise ConfigError(
                f"tasks.{next(iter(chunk_sizes))}.chunk_size runs the encoder twice, which a"
                " pipeline does not; leave it or training.parallel.pipeline out"
            )
        loss_module = self.strategy.wrap(LossModule(self.model, chunk_sizes))
        self.loss_module, self.optimizer = fabric.setup(loss_module, self.bare_optimizer)
        steering = self.config.mixture.steering
        self.steering: Steering | None = None
        if steering:
            self.steering = Steering(steering, list(recipe.tasks), state.steering)
        steps = self.config.profile if fabric.is_global_zero else 0
        self.profiler = StepProfiler(recipe.folder / PROFILE_FOLDER, steps)
        self.stop = StopRequest()
        self._saved = state.step
        self._writing: Future[None] | None = None
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        # collectives of a thread must not be among those of the training
        self._writers = new_group(backend="gloo") if self.strategy.in_parts else None

    def fit(self) -> int:
        """Train to the end. Returns 0, or the number of the signal that stopped the run.

        A checkpoint is written before each validation, so that whatever happens there costs no
        step. A validation that an earlier process did not finish is done first.

        Raises TrainingError if too many steps have no finite loss and gradient, or if a checkpoint
        cannot be written.
        """
        self.model.train()
        self._run_validation()
        batches = self.batches()
        self.profiler.start()
        try:
            while self.state.step < self.steps:
                signal = self.update(batches)
                self.profiler.step()
                if signal or self._validation_is_due or self._is_due(self.config.checkpoint_every):
                    self._save_checkpoint()
                if signal and self.state.step < self.steps:
                    self._finish_saving()
                    return signal
                self._run_validation()
            self._finish_saving()
        finally:
            self.profiler.stop()
            self._writer.shutdown()
        return 0

    def batches(self) -> Iterator[Batch]:
        """The remaining micro-batches. The number of workers does not change them."""
        done = self.state.step * self.config.gradient_accumulation_steps
        workers = self.config.workers
        loader = DataLoader(
            self.mixture,
            batch_size=None,
            # the weights of the tasks are known here, and not in the workers
            sampler=map(self.mixture.draw, range(done, len(self.mixture))),
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            persistent_workers=workers > 0,
            pin_memory=self.fabric.device.type == "cuda",
            worker_init_fn=ignore_signals,
        )
        return iter(loader)

    def update(self, batches: Iterator[Batch]) -> int:
        """Do one step. Returns the number of the signal that requests a stop, or 0."""
        state = self.state
        # those that share a layer must leave out the same numbers
        seed_dropout(self.config.seed, state.step, self.place.rank // self.place.tensor)
        try:
            update = self._agree(*self.backward(batches))
        except Exception as error:  # nothing of this step has changed the model
            self._save_what_is_done(everywhere=isinstance(error, ConfigError | TrainingError))
            raise
        state.step += 1
        state.samples = dict(update.samples + Counter(state.samples))
        rate, tasks = float(self.schedule.get_last_lr()[0]), ", ".join(update.losses)
        spikes = self._find_spikes(update)
        if not update.finite or spikes:
            # Without gradients, the optimizer changes nothing.
            self.optimizer.zero_grad(set_to_none=True)
        last, measured = state.step == self.steps, {}
        if update.finite and self.logger.is_due(state.step, last):
            measured = self._measure(update)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if spikes:
            self._leave_out(spikes, update)
        elif update.finite:
            state.nonfinite = 0
            samples = update.samples.total()
            self.logger.log_step(
                state.step,
                update.losses,
                samples,
                rate,
                last,
                update.imbalance,
                update.work,
                measured,
            )
        else:
            state.nonfinite += 1
            state.without_update += 1
            loss = sum(update.losses.values()) / len(update.losses)
            self.logger.log_nonfinite(state.step, tasks, loss, update.norm, update.keys)
        if self.tracker and self._is_due(self.config.log_every):
            self.logger.log_interference(state.step, self.tracker.estimates())
        if self.steering and self.tracker and self._steers_by_interference:
            self._steer(self.steering.by_interference(state.step, self.tracker.estimates()))
        if state.nonfinite >= self.config.max_nonfinite_steps:
            self._save_what_is_done(everywhere=True)
            raise TrainingError(
                f"{state.nonfinite} steps in a row without a finite loss and gradient; the last was"
                f" step {state.step} of task {tasks}. Lower training.optimizer.learning_rate, which"
                f" was {rate:.2g} there; or check the labels and files of the samples"
                f" {shorten(update.keys)}"
            )
        return update.stop

    @property
    def _steers_by_interference(self) -> bool:
        steering = self.config.mixture.steering
        return (
            steering is not None
            and steering.by == "interference"
            and self.state.step % steering.every == 0
        )

    def _steer(self, change: WeightChange | None) -> None:
        """Change the weights of the tasks, and log it. All processes decide the same."""
        if change and self.steering:
            self.mixture.change_weights(change)
            factors = dict(zip(self.steering.tasks, change.factors, strict=True))
            self.logger.log_steering(
                self.state.step, self.steering.config.by, change.first, factors
            )

    def backward(self, batches: Iterator[Batch]) -> tuple[Tensor, Tensor, list[Batch]]:
        """Compute the clipped gradients of one update. Returns its mean loss, the norm of the
        gradients before clipping, and its micro-batches.

        Raises ConfigError or TrainingError on all processes if one of them cannot read its data.
        """
        noise = route_noise(self.config.seed, self.state.step)
        count = self.config.gradient_accumulation_steps
        own: list[LossTerms] = []
        failure: ConfigError | TrainingError | None = None
        try:
            seen = [self.logger.time_next(batches) for _ in range(count)]
            own = [LossTerms(batch.layout.task, self.model.loss_terms(batch)) for batch in seen]
        except (ConfigError, TrainingError) as error:
            failure = error
        shared, failures = zip(*gather_objects(self.fabric, (own, failure)), strict=True)
        for failed in filter(None, failures):
            raise failed
        replicas = shared[:: self.place.replica_size]
        update = [one for terms in replicas for one in terms]
        self.strategy.begin(set().union(*(self._active_parameters(terms.task) for terms in own)))
        micro_batches = [
            MicroBatch(
                batch.to(self.fabric.device),
                noise,
                loss_scales(terms, update),
                [
                    self.place.of_replica(number)
                    for number, of_replica in enumerate(replicas)
                    if of_replica[i].task == terms.task
                ],
            )
            for i, (batch, terms) in enumerate(zip(seen, own, strict=True))
        ]
        total = self.strategy.run(self.loss_module, micro_batches, self.fabric.backward)
        self.strategy.finish()
        if self.tracker:
            self.tracker.observe(self.state.step, seen[0].layout.task)
        return total, self.strategy.clip(self.config.optimizer.max_grad_norm), seen

    def _active_parameters(self, task: str) -> set[str]:
        """The names of the parameters that a task activates."""
        if task not in self._active:
            self._active[task] = set(self.model.active_parameters(task))
        return self._active[task]

    def _activated(self, task: str) -> int:
        """The number of parameters that a task activates."""
        if task not in self._counts:
            self._counts[task] = activated_parameters(self.model, task)
        return self._counts[task]

    def _agree(self, loss: Tensor, norm: Tensor, batches: list[Batch]) -> Update:
        """Combine the outcomes of all processes, so that all of them do the same."""
        numbers = torch.stack([loss, norm]).tolist()
        keys: list[str] = []
        if not all(map(math.isfinite, numbers)):
            keys = [key for batch in batches for key in batch.keys]
        samples = Counter({batches[0].layout.task: sum(len(batch) for batch in batches)})
        skips = [skip for batch in batches for skip in batch.skipped]
        tokens = sum(batch.tokens for batch in batches)
        outcome = (*numbers, samples, tokens, self.stop.signal, keys, skips)
        shared = gather_objects(self.fabric, outcome)
        stop = max(signal for *_, signal, _, _ in shared)
        finite = all(math.isfinite(value) for outcome in shared for value in outcome[:2])
        one_each = shared[:: self.place.replica_size]
        losses, norms, counts, work, _, all_keys, all_skips = zip(*one_each, strict=True)
        trained = [next(iter(count)) for count in counts]
        flops = sum(6 * n * self._activated(task) for task, n in zip(trained, work, strict=True))
        self.logger.log_skipped(self.state.step + 1, [s for skips in all_skips for s in skips])
        by_task: dict[str, list[float]] = {}
        for value, count in zip(losses, counts, strict=True):
            by_task.setdefault(next(iter(count)), []).append(value)
        return Update(
            losses={task: sum(values) / len(values) for task, values in by_task.items()},
            norm=norms[0],
            samples=sum(counts, Counter()),
            imbalance=max(work) * len(work) / max(sum(work), 1),
            finite=finite,
            stop=stop,
            keys=[key for keys in all_keys for key in keys],
            work=Work(sum(work), flops),
        )

    def _find_spikes(self, update: Update) -> list[str]:
        config = self.config.loss_spikes
        if config is None or not update.finite:
            return []
        return find_spikes(update.losses, self.state.losses, config)

    def _leave_out(self, spikes: list[str], update: Update) -> None:
        """Log a step that was left out, and go back to the newest checkpoint if the recipe says so.
        Raises TrainingError after too many of them."""
        config, state = self.config.loss_spikes, self.state
        assert config is not None
        state.spikes += 1
        newest = self._newest_checkpoint() if config.action == "roll_back" else None
        if newest:
            self._restore(newest)
        losses = {task: update.losses[task] for task in spikes}
        self.logger.log_spike(state.step, losses, state.losses, newest)
        if state.spikes >= config.limit:
            self._save_what_is_done(everywhere=True)
            raise TrainingError(
                f"{state.spikes} steps whose loss was far above the earlier ones; the last was step"
                f" {state.step} of {', '.join(spikes)}. Lower training.optimizer.learning_rate, or"
                " look at training.loss_spikes (metrics.jsonl lists them)"
            )

    def _newest_checkpoint(self) -> Path | None:
        """The newest undamaged checkpoint, on all processes; None where there is none yet."""
        self._finish_saving()
        found: Path | None = None
        if self.fabric.is_global_zero and self.checkpoints.steps():
            found = self.checkpoints.newest_undamaged()
        return self.fabric.broadcast(found)

    @torch.no_grad()
    def _restore(self, folder: Path) -> None:
        """Set weights and optimizer state to those of a checkpoint."""
        weights = read_tuned(folder) if self.tuning else load_file(folder / FILE)
        for name, own in self.model.state_dict().items():
            if name in weights:
                weight = self.strategy.replica.loaded(name, weights[name].to(own.device))
                own.copy_(divided_like(weight, own))
        self.bare_optimizer.state.clear()
        self._load_optimizer(folder)

    def _load_optimizer(self, folder: Path) -> None:
        """Set the optimizer state to that of a checkpoint."""
        tensors = read_optimizer_tensors(folder, self.model, self.strategy.elsewhere)
        loaded = {
            path: self.strategy.replica.loaded(path.rpartition("/")[0], x)
            for path, x in tensors.items()
        }
        load_optimizer_tensors(self.bare_optimizer, self.model, loaded)

    def _measure(self, update: Update) -> dict[str, float]:
        """Figures of a step that are logged: norms of the gradients before clipping, in all and by
        component, and memory."""
        found = {"gradient_norm": update.norm, **memory_in_use(self.fabric.device)}
        if self.strategy.in_parts:
            return found
        limit = self.config.optimizer.max_grad_norm
        clipped = 1.0 if limit is None else max(1.0, update.norm / limit)
        by_component: dict[str, list[Tensor]] = {}
        for name, weight in self.model.named_parameters():
            if weight.grad is not None:
                by_component.setdefault(component_of(name), []).append(weight.grad)
        for name, gradients in by_component.items():
            found[f"gradient_norm/{name}"] = float(nn.utils.get_total_norm(gradients)) * clipped
        return found

    def _is_due(self, every: int) -> bool:
        """Whether to do now what is done every so many steps and after the last one."""
        return self.state.step == self.steps or bool(every and self.state.step % every == 0)

    @property
    def _validation_is_due(self) -> bool:
        return self.state.validated < self.state.step and self._is_due(self.config.validate_every)

    def _run_validation(self) -> None:
        """Validate all tasks if it is due. The best checkpoint has the highest mean of their
        scores."""
        if not self._validation_is_due:
            return
        state = self.state
        self.model.eval()
        # all processes have the same samples, and none compares them with those of another
        alone = peers([self.place.rank]) if self.place.replica_size > 1 else nullcontext()
        with torch.no_grad(), self.fabric.autocast(), self.strategy.whole(), alone:
            found = ValidationResult(*self.fabric.broadcast(self.validate(self.model)))
        self.model.train()
        self.logger.log_skipped(state.step, found.skips)
        self.logger.log_failures(state.step, found.failures)
        self.logger.log_experts(state.step, found.uses)
        if found.results:
            scores = [summary_score(metrics) for metrics in found.results.values()]
            value = sum(scores) / len(scores)
            best = math.isfinite(value) and (state.best_value is None or value > state.best_value)
            if best:
                state.best_step, state.best_value = state.step, value
            self.logger.log_validation(state.step, found.results, value, best)
            if self.steering and self.steering.config.by == "validation":
                losses = {task: metrics["loss"] for task, metrics in found.results.items()}
                self._steer(self.steering.by_validation(state.step, losses))
        state.validated = state.step
        self._finish_saving()
        first = self.fabric.is_global_zero
        self._on_all(partial(self.checkpoints.save_validation, state) if first else None)

    def _save_what_is_done(self, everywhere: bool) -> None:
        """Write a checkpoint of the finished steps before an error ends the run.

        `everywhere`: whether all processes have the error. Otherwise one of several cannot know
        whether the others have finished the step.
        """
        if (everywhere or self.fabric.world_size == 1) and self._saved != self.state.step:
            with suppress(Exception):  # the error that ends the run is told
                self._save_checkpoint()
                self._finish_saving()

    def _save_checkpoint(self) -> None:
        """Begin to write a checkpoint, and finish it unless it may be written during the next
        steps. All processes call it. Raises TrainingError on all of them if this checkpoint or the
        one before it cannot be written."""
        self._finish_saving()
        state, later = self.state, self.config.asynchronous_checkpoints
        state.logger = self.logger.state
        trained = trained_parameters(self.model)
        kept: dict[str, Tensor] = {**(trained if self.tuning else self.model.state_dict())}
        stored = self.strategy.replica.stored
        model = {name: stored(name, x) for name, x in kept.items()}
        optimizer = {
            path: stored(path.rpartition("/")[0], x)
            for path, x in optimizer_tensors(self.bare_optimizer, self.model).items()
        }
        contents = Contents(model, optimizer, self.tracker.state if self.tracker else {})
        if later:
            contents, state = contents.copied(), deepcopy(state)
        write: Callable[[], None] | None = None
        if self._writers:
            parts = partial(self._write_parts, contents, self._writers)
            complete = self._complete
            write = partial(self.checkpoints.save_together, state, parts, complete, self._writers)
        elif self.fabric.is_global_zero:
            write = partial(self.checkpoints.save, state, partial(self._write, contents))
        self._saved = state.step
        if not later:
            self._on_all(write)
        elif write:
            self._writing = self._writer.submit(write)

    def _finish_saving(self) -> None:
        """Wait until the checkpoint is written that was begun last. Raises TrainingError on all
        processes if it cannot be written."""
        running, self._writing = self._writing, None
        self._on_all(running.result if running else None)

    def _on_all(self, work: Callable[[], None] | None) -> None:
        """Do the work of this process, if it has any. Raises TrainingError on all processes if it
        fails on one."""
        failure = ""
        try:
            if work:
                work()
        except TrainingError as error:
            failure = str(error)
        for told in filter(None, gather_objects(self.fabric, failure)):
            raise TrainingError(told)

    def _write(self, contents: Contents, folder: Path) -> None:
        """Write all files of a checkpoint but those that `Checkpoints` writes."""
        self._describe_model(contents.model, folder)
        save_file(contents.optimizer, folder / OPTIMIZER_FILE)
        if self.tracker:
            save_file(contents.tracker, folder / TRACKER_FILE)

    def _write_parts(self, contents: Contents, group: ProcessGroup, folder: Path) -> None:
        """Write the parts that this process has."""
        save_together(contents.model, folder / MODEL_PARTS, group)
        save_together(contents.optimizer, folder / OPTIMIZER_FOLDER, group)

    def _complete(self, folder: Path) -> None:
        """Merge the parts of the model, so that the checkpoint is a model folder as any other."""
        self._describe_model(load_whole(folder / MODEL_PARTS), folder)
        remove(folder / MODEL_PARTS)

    def _describe_model(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        if self.tuning:
            self.tuning.save(self.model, folder, tensors)
        else:
            self.model.save_pretrained(folder, state=tensors)

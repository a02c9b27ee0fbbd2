"""A run: prepare the recipe, create the folder, start the processes, train."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from skillweave.batch import SkippedSample
from skillweave.config import ConfigError
from skillweave.config.data import Split
from skillweave.config.training import TrainingConfig
from skillweave.data.mixture import Mixture
from skillweave.layers.recompute import Recompute
from skillweave.model.config import ModelConfig
from skillweave.model.folders import CONFIG_FILE
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.resolve import ResolvedRecipe, resolve, resolved
from skillweave.training.allocator import keep_freed_memory
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.errors import Interrupted, TrainingError
from skillweave.training.feature_cache import Filled, cache_features, fill_cache
from skillweave.training.initial_weights import copy_weights, require_alike, start_folder
from skillweave.training.memory import MemoryCheck
from skillweave.training.mesh import Place
from skillweave.training.parallel import (
    device_kind,
    join_group,
    launch,
    leave_group,
    make_fabric,
    started_by_torchrun,
    was_restarted,
    with_started_processes,
)
from skillweave.training.partial_tuning import PartialTuning, build_tuned
from skillweave.training.progress import ProgressDisplay
from skillweave.training.reader import TimedReader
from skillweave.training.run_folder import (
    require_checkpoint,
    require_free,
    require_space,
    run_folder,
    stored_recipe,
    with_batches_of,
)
from skillweave.training.run_logger import RunLogger
from skillweave.training.run_store import RunStore
from skillweave.training.signals import handle_signals
from skillweave.training.steering import stored_changes
from skillweave.training.trackers import Tracker, open_trackers, require_trackers, why_absent
from skillweave.training.trainer import Trainer
from skillweave.training.validation import Validation
from skillweave.weights.files import read_assets


class Prepared(NamedTuple):
    """What all processes of a run need: the resolved recipe, the model's assets, and the checkpoint
    to continue from, if there is one."""

    recipe: RecipeConfig
    assets: dict[str, bytes]
    newest: Path | None


class Outcome(NamedTuple):
    """How a run ended: after `step`, because of a `signal` (0 for none), or with an `error`."""

    step: int = 0
    signal: int = 0
    error: ConfigError | TrainingError | None = None


def train(recipe: RecipeConfig, *, resume: bool = False, quiet: bool = False) -> Path:
    """Train a recipe and return the run folder. Its links `best` and `last` name checkpoints.

    `resume`: continue from the newest undamaged checkpoint of the run folder. `quiet`: show no
    progress. Raises ConfigError before training if recipe, data or folder are faulty, or if there
    is nothing to resume, TrainingError if the run cannot continue, and Interrupted after SIGINT or
    SIGTERM. Several devices start new processes: a script then needs
    `if __name__ == "__main__"`. Under torchrun the processes are there already, and this one is
    one of them.
    """
    outcome = (_join if started_by_torchrun() else _start)(recipe, resume, quiet)
    if outcome.error:
        raise outcome.error
    if outcome.signal:
        raise Interrupted(recipe.folder, outcome.step, outcome.signal)
    return recipe.folder


def _start(recipe: RecipeConfig, resume: bool, quiet: bool) -> Outcome:
    """Train in this process, or in new ones."""
    fabric = make_fabric(recipe.training)
    ready = prepare(recipe, resume)
    with run_folder(ready.recipe, resume):
        try:
            return Outcome(*launch(fabric, _run_process, *ready, quiet))
        except (ProcessRaisedException, ProcessExitedException) as error:
            cause = str(error).strip().splitlines()[-1]
            if "by peer" in cause:  # what the processes that are left see
                cause = "a process of the run has died, perhaps because memory ran out"
            raise TrainingError(f"{cause}; {what_next(ready.recipe)}") from error


def _join(recipe: RecipeConfig, resume: bool, quiet: bool) -> Outcome:
    """Train as one of the processes that torchrun started. The first one prepares the run and holds
    its folder; if it cannot, the others raise the same error without a message."""
    recipe = with_started_processes(recipe)
    fabric = make_fabric(recipe.training)
    join_group(fabric)
    ready: Prepared | None = None
    failure: ConfigError | None = None
    with ExitStack() as held:
        if fabric.is_global_zero:
            # torchrun starts all processes again after one of them has died
            resume = resume or (was_restarted() and bool(Checkpoints(recipe.folder).steps()))
            try:
                ready = prepare(recipe, resume)
                held.enter_context(run_folder(ready.recipe, resume))
            except ConfigError as error:
                failure = error
        ready = fabric.broadcast(ready)
        if ready is None:
            raise ConfigError() if failure is None else failure
        outcome = _run_process(fabric, *ready, quiet)
        leave_group(fabric)
    return outcome


def prepare(recipe: RecipeConfig, resume: bool) -> Prepared:
    """Resolve a recipe for training. Raises ConfigError if recipe or data are faulty, if there is
    nothing to resume, or if a new run finds its folder taken."""
    if recipe.store:
        store = RunStore(recipe.store)
        store.pull(recipe.folder) if resume else store.require_free()
    (require_checkpoint if resume else require_free)(recipe.folder)
    require_trackers(recipe.training.track or ())
    if resume:
        stored = stored_recipe(recipe.folder)
        recipe = with_batches_of(_with_sizes(recipe, _sizes_of(stored)), stored)
    newest = Checkpoints(recipe.folder).newest_undamaged() if resume else None
    source = newest or (start_folder(recipe.start_from) if recipe.start_from else None)
    base = ModelConfig.from_file(source / CONFIG_FILE) if source else None
    automatic = [name for name, task in recipe.tasks.items() if not task.batch_size]
    recipe = _with_sizes(recipe, dict.fromkeys(automatic, 2))
    ready = resolve(recipe, read_assets(source) if source else {}, base).pinned()
    if base and not newest:
        require_alike(ready.recipe.model, base, recipe.start_from or "")
    found = ready.recipe
    if automatic:
        found = _with_sizes(found, find_batch_sizes(ready, automatic), automatic)
    return Prepared(found, dict(ready.assets), newest)


def _sizes_of(recipe: RecipeConfig) -> dict[str, int]:
    return {name: task.batch_size for name, task in recipe.tasks.items()}


def _with_sizes(
    recipe: RecipeConfig, sizes: Mapping[str, int], replaced: Collection[str] = ()
) -> RecipeConfig:
    """The recipe with these batch sizes for tasks of which none is known, and those `replaced`."""
    tasks = {
        name: task
        if (task.batch_size and name not in replaced) or name not in sizes
        else task.model_copy(update={"batch_size": sizes[name]})
        for name, task in recipe.tasks.items()
    }
    return recipe.model_copy(update={"tasks": tasks})


def find_batch_sizes(ready: ResolvedRecipe, tasks: Collection[str]) -> dict[str, int]:
    """The largest batch of each task whose step fits into the memory of the training's device.
    Raises ConfigError for a task of which not even the smallest fits."""
    recipe, config = ready.recipe, ready.recipe.training
    quiet = ProgressDisplay(0, 0, quiet=True)
    model, _ = build_model(recipe, dict(ready.assets), None, quiet)
    model.recompute_activations(recompute_of(config))
    datasets = {name: ready.dataset(name, "train", training=True) for name in tasks}
    chunk_sizes = {name: task.chunk_size for name, task in recipe.tasks.items()}
    device = torch.device(device_kind(config.accelerator))
    memory = MemoryCheck(model, datasets, config, device, chunk_sizes)
    return {
        name: memory.batch_size(name, max(1, len(data) // config.replicas))
        for name, data in datasets.items()
    }


def fill_feature_cache(
    recipe: RecipeConfig, device: torch.device, batch_size: int = 64
) -> Iterator[Filled]:
    """Compute the features of frozen backbones for the training and validation data of a recipe,
    and store them where `training.feature_cache` says.

    What is stored already is not computed again. Raises ConfigError as `train` does, and for a
    recipe without a feature cache.
    """
    config = recipe.training.feature_cache
    if config is None:
        raise ConfigError(
            "the recipe has no feature cache; add one, such as --training.feature_cache.path FOLDER"
        )
    source = start_folder(recipe.start_from) if recipe.start_from else None
    base = ModelConfig.from_file(source / CONFIG_FILE) if source else None
    ready = resolve(recipe, read_assets(source) if source else {}, base)
    recipe, display = ready.recipe, ProgressDisplay(0, 0, quiet=True)
    model, _ = build_model(recipe, dict(ready.assets), None, display)
    datasets = {
        "train": {name: ready.dataset(name, "train", training=True) for name in recipe.tasks},
        "validation": open_validation(ready, display),
    }
    caches = cache_features(model, datasets, config)
    yield from fill_cache(caches, datasets, batch_size, recipe.training.workers, device)


def _run_process(
    fabric: Fabric,
    recipe: RecipeConfig,
    assets: dict[str, bytes],
    newest: Path | None,
    quiet: bool,
) -> Outcome:
    """Train on one process.

    Errors are returned, because an error raised in a spawned process reaches the caller as a stack
    trace.
    """
    try:
        return _run(fabric, recipe, assets, newest, quiet)
    except (ConfigError, TrainingError) as error:
        # The error of a data worker has its stack trace before the message.
        kind = type(error)
        return Outcome(error=kind(str(error).rpartition(f"{kind.__name__}: ")[2]))
    except (OSError, RuntimeError) as error:
        if not (remedy := remedy_for(error)):
            raise
        return Outcome(error=TrainingError(f"{error}; {remedy} and {what_next(recipe)}"))


def what_next(recipe: RecipeConfig) -> str:
    """How to go on after a run has ended early."""
    saved = Checkpoints(recipe.folder).steps()
    return "continue with --resume" if saved else "train again; there is no checkpoint"


def remedy_for(error: Exception) -> str:
    """The remedy for a failure of the machine; empty for other errors."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "free some space"
    if str(error).startswith("DataLoader worker"):
        return "a data worker died, usually because memory ran out: lower training.workers"
    return ""


def _run(
    fabric: Fabric,
    recipe: RecipeConfig,
    assets: dict[str, bytes],
    newest: Path | None,
    quiet: bool,
) -> Outcome:
    """Build everything, from the checkpoint `newest` if there is one, and train."""
    config, is_first = recipe.training, fabric.is_global_zero
    if config.threads:
        torch.set_num_threads(config.threads)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    store = RunStore(recipe.store) if recipe.store and is_first else None
    checkpoints = Checkpoints(recipe.folder, config.save_total_limit, store)
    state = TrainingState.read(newest) if newest else TrainingState(seed=config.seed)
    place = Place.of(fabric.global_rank, fabric.world_size, config.parallel)
    ready = resolved(recipe, assets)
    datasets = {name: ready.dataset(name, "train", training=True) for name in recipe.tasks}
    timed: dict[str, Any] = {
        name: TimedReader(one, config.reader_timeout) for name, one in datasets.items()
    }
    mixture = Mixture(
        timed,
        config,
        recipe.tasks,
        place.replica,
        place.replicas,
        stored_changes(state.steering),
    )
    require_same_batches(state, mixture, recipe)
    state.processes = place.replicas
    display = ProgressDisplay(mixture.steps, state.step, quiet=quiet or not is_first)
    validated = open_validation(ready, display)
    model, tuning = build_model(recipe, assets, newest, display)
    model.recompute_activations(recompute_of(config))
    if config.compile:
        model.compile_blocks()
    if config.feature_cache:
        cache_features(model, {"train": datasets, "validation": validated}, config.feature_cache)
    require_space(recipe.folder, model, assets, config)
    chunk_sizes = {name: task.chunk_size for name, task in recipe.tasks.items()}
    memory = MemoryCheck(model, datasets, config, fabric.device, chunk_sizes)
    sizes = {
        name: memory.samples_of(name, task.batch_tokens)
        if task.batch_tokens
        else mixture.batch_sizes[name]
        for name, task in recipe.tasks.items()
    }
    if full := memory.check(sizes):
        display.warn(full)
    if is_first:
        for damaged in checkpoints.set_aside_after(state.step):
            display.warn(f"a damaged checkpoint is now {damaged}; {newest} is used instead")
        checkpoints.clean(state)
    validation = Validation(validated, config.validation_samples)
    folder = recipe.folder if is_first else None
    trackers = open_run_trackers(recipe, state.step, display) if is_first else ()
    logger = RunLogger(folder, display, config.log_every, state, trackers)
    with store.claimed(display.warn) if store else nullcontext(), logger:
        trainer = Trainer(
            fabric, recipe, model, mixture, validation, checkpoints, logger, state, tuning
        )
        if state.step:
            display.note(f"resuming after step {state.step} of {mixture.steps}")
        elif is_first:
            logger.log_data({name: len(dataset) for name, dataset in datasets.items()})
            for name, dataset in datasets.items():
                for one in (dataset, validated.get(name), open_if_any(ready, name, "test")):
                    for remark in one.remarks() if one else ():
                        display.warn(f"task {name}: {remark}")
        for name, dataset in datasets.items():
            logger.log_skipped(0, [SkippedSample(name, *row) for row in dataset.source.skipped])
        with handle_signals(trainer.stop):
            signal = trainer.fit()
        logger.print_skipped()
    return Outcome(state.step, signal)


def require_same_batches(state: TrainingState, mixture: Mixture, recipe: RecipeConfig) -> None:
    """Raise ConfigError if a run goes on with another number of processes, and its steps would
    have other samples."""
    if not state.step or state.processes in (0, mixture.world_size):
        return
    for name, size in mixture.batch_sizes.items():
        if size != recipe.tasks[name].batch_size and not recipe.tasks[name].batch_tokens:
            raise ConfigError(
                f"training.devices: task {name!r} has too few samples for the batches of"
                f" {mixture.world_size} processes that continue those of {state.processes}; resume"
                f" with {state.processes}"
            )


def open_run_trackers(recipe: RecipeConfig, step: int, display: ProgressDisplay) -> list[Tracker]:
    """The trackers of a run; by default TensorBoard, with a note if that is not installed."""
    names = recipe.training.track
    if names is None:
        names = ["tensorboard"]
        if why_absent("tensorboard"):
            display.note("no TensorBoard log; to get one: pip install 'skillweave[track]'")
            return []
    settings = recipe.model_dump(mode="json")
    return open_trackers(names, recipe.folder, recipe.name, settings, step)


def recompute_of(config: TrainingConfig) -> Recompute | None:
    """What the setting `activation_checkpointing` means."""
    match config.activation_checkpointing:
        case "none":
            return None
        case "selective":
            return Recompute(selective=True)
        case every:
            return Recompute(every)


def build_model(
    recipe: RecipeConfig,
    assets: dict[str, bytes],
    newest: Path | None,
    display: ProgressDisplay,
) -> tuple[Model, PartialTuning | None]:
    """The model of the newest checkpoint; without one, a new model with the weights of `start_from`
    that fit.

    The second value is None if the whole model is trained.
    """
    if recipe.partial:
        model, tuning, report = build_tuned(recipe, recipe.partial, assets, newest)
        if not newest:
            display.note(report)
        return model, tuning
    if newest:
        return Model.from_pretrained(newest), None
    torch.manual_seed(recipe.training.seed)
    model = Model(recipe.model, assets)
    if recipe.start_from:
        source = Model.from_pretrained(start_folder(recipe.start_from))
        display.note(copy_weights(model, source.state_dict(), recipe.start_from))
    return model, None


def open_if_any(recipe: ResolvedRecipe, name: str, split: Split) -> TaskDataset | None:
    """A split of a task; None if it cannot be read, which whoever needs it reports."""
    try:
        return recipe.dataset(name, split)
    except ConfigError:
        return None


def open_validation(recipe: ResolvedRecipe, display: ProgressDisplay) -> dict[str, TaskDataset]:
    """The validation data of the tasks that have any."""
    datasets = {}
    for name in recipe.tasks:
        try:
            datasets[name] = recipe.dataset(name, "validation")
        except ConfigError as error:
            display.note(f"task {name} is not validated: {error}")
    return datasets

"""A whole run: prepare, claim the folder, start the processes, train, and say how it ended."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from skillweave.batch import SkippedSample
from skillweave.config import ConfigError
from skillweave.data.mixture import Mixture
from skillweave.model.config import ModelConfig
from skillweave.model.folders import CONFIG_FILE
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset, open_task
from skillweave.tasks.prepare import prepare
from skillweave.training.checkpoint import Checkpoints, State
from skillweave.training.errors import Interrupted, TrainingError
from skillweave.training.folder import abandon, claim, establish, require_same, require_space
from skillweave.training.journal import Journal
from skillweave.training.memory import keep_freed_memory
from skillweave.training.parallel import Signals, launch, make_fabric
from skillweave.training.progress import Display
from skillweave.training.start import start_folder, take_weights
from skillweave.training.trainer import Trainer
from skillweave.training.tuning import Tuning, build_tuned
from skillweave.training.validation import Validation
from skillweave.weights.files import read_assets


class Outcome(NamedTuple):
    """How a run ended: after `step`, by signal number `signal` (0: at its end), or with an `error`
    and its message."""

    step: int = 0
    signal: int = 0
    error: str = ""
    message: str = ""


def train(recipe: RecipeConfig, *, resume: bool = False, quiet: bool = False) -> Path:
    """Train a recipe and return the run folder, whose `best` and `last` link to checkpoints.

    `resume`: go on from the newest checkpoint of the run folder; where there is no run yet, start
    it. `quiet`: no progress on the screen. Raises ConfigError for faults in recipe, data or folder
    before any training, TrainingError when the run cannot go on, Interrupted after SIGINT or
    SIGTERM. Several devices start new processes: guard a script's main part with `if __name__ ==
    "__main__"`.
    """
    found = claim(recipe.folder, resume)
    newest = Checkpoints(recipe.folder, recipe.training.keep).newest() if found else None
    fabric = make_fabric(recipe.training)
    source = newest or (start_folder(recipe.start_from) if recipe.start_from else None)
    base = ModelConfig.from_file(source / CONFIG_FILE) if source else None
    recipe, assets = prepare(recipe, read_assets(source) if source else {}, base)
    if found:
        require_same(recipe)
    else:
        establish(recipe)
    try:
        outcome = Outcome(*launch(fabric, work, recipe, assets, quiet))
    except (ProcessRaisedException, ProcessExitedException) as error:
        raise TrainingError(str(error).strip().splitlines()[-1]) from error
    if outcome.error == ConfigError.__name__:
        if not found:
            abandon(recipe.folder)
        raise ConfigError(outcome.message)
    if outcome.error:
        raise TrainingError(outcome.message)
    if outcome.signal:
        raise Interrupted(recipe.folder, outcome.step, outcome.signal)
    return recipe.folder


def work(fabric: Fabric, recipe: RecipeConfig, assets: dict[str, bytes], quiet: bool) -> Outcome:
    """One process's run.

    Errors are returned: raised in a spawned process, they would reach the caller as a stack trace.
    """
    try:
        return run(fabric, recipe, assets, quiet)
    except (ConfigError, TrainingError) as error:
        # A data worker's error brings its stack trace along, before the message.
        name = type(error).__name__
        return Outcome(error=name, message=str(error).rpartition(f"{name}: ")[2])
    except (OSError, RuntimeError) as error:
        if not (remedy := remedy_for(error)):
            raise
        return Outcome(
            error=TrainingError.__name__, message=f"{error}; {remedy} and continue with --resume"
        )


def remedy_for(error: Exception) -> str:
    """What to do about a failure of the machine rather than of the program; empty for anything
    else."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "free some space"
    if str(error).startswith("DataLoader worker"):
        return "a data worker died, most often for lack of memory: lower training.workers"
    return ""


def run(fabric: Fabric, recipe: RecipeConfig, assets: dict[str, bytes], quiet: bool) -> Outcome:
    """Build everything from the newest checkpoint, or afresh, and train."""
    config, first = recipe.training, fabric.is_global_zero
    if config.threads:
        torch.set_num_threads(config.threads)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    checkpoints = Checkpoints(recipe.folder, config.keep)
    newest = checkpoints.newest()
    state = State.read(newest) if newest else State(seed=config.seed)
    datasets = {name: open_task(recipe, name, "train", assets) for name in recipe.tasks}
    mixture = Mixture(
        datasets, config, recipe.tasks, fabric.global_rank, fabric.world_size
    )
    display = Display(mixture.steps, state.step, quiet=quiet or not first)
    model, tuning = build_model(recipe, assets, newest, display)
    require_space(recipe.folder, model, assets, config.keep)
    if first:
        checkpoints.clean(state)
    validation = Validation(open_validation(recipe, assets, display), recipe)
    with Journal(
        recipe.folder if first else None, display, config.log_every, state.progress, state.step
    ) as journal:
        trainer = Trainer(
            fabric, recipe, model, mixture, validation, checkpoints, journal, state, tuning
        )
        if state.step:
            display.note(f"resuming after step {state.step} of {mixture.steps}")
        journal.skipped(
            0,
            [
                SkippedSample(name, *row)
                for name, data in datasets.items()
                for row in data.source.skipped
            ],
        )
        with Signals(trainer.stop):
            signal = trainer.fit()
        journal.summary()
    return Outcome(state.step, signal)


def build_model(
    recipe: RecipeConfig, assets: dict[str, bytes], newest: Path | None, display: Display
) -> tuple[Model, Tuning | None]:
    """The model of the newest checkpoint; else a fresh one, with the weights of `start_from` where
    they fit.

    Where a part of it is tuned, also what saves that part.
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
        display.note(take_weights(model, source.state_dict(), recipe.start_from))
    return model, None


def open_validation(
    recipe: RecipeConfig, assets: dict[str, bytes], display: Display
) -> dict[str, TaskDataset]:
    """The validation datasets of those tasks that have validation samples."""
    datasets = {}
    for name in recipe.tasks:
        try:
            datasets[name] = open_task(recipe, name, "validation", assets)
        except ConfigError as error:
            display.note(f"task {name} is not validated: {error}")
    return datasets

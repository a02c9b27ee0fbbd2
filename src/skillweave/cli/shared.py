"""What several commands share: options, opening a run, and writing files."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

from typer import Argument, Option

import skillweave as sw

if TYPE_CHECKING:
    from skillweave.tasks.resolve import ResolvedRecipe

Run = Annotated[
    str, Argument(metavar="RUN", help="A run folder, such as runs/quickstart, or a checkpoint.")
]
SavedModel = Annotated[
    str,
    Argument(
        metavar="MODEL",
        help="A run, a checkpoint, a model folder, a Hugging Face folder or the id of a model on"
        " the hub.",
    ),
]
Data = Annotated[
    list[str] | None,
    Option(metavar="TASK=PATH", help="Other data for a task than those of the run."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    Option(help="Where the model runs; auto takes the first available of cuda, mps and cpu."),
]
Engine = Annotated[
    Literal["native", "ray"],
    Option(help="Where to train: here, or on the Ray cluster that this machine is part of."),
]

Results = Any
"""What a command returns, as JSON holds it. The option `--json` of every command writes it."""
Resamples = Annotated[
    int,
    Option(metavar="N", min=0, max=1_000_000, help="Resamples for the confidence intervals."),
]
Split = Annotated[Literal["train", "validation", "test"], Option(help="The samples to use.")]
Tasks = Annotated[list[str] | None, Option(metavar="TASK", help="These tasks only.")]
Task = Annotated[str, Option(metavar="TASK", help="The task.")]
Seed = Annotated[int, Option(min=0, max=2**63 - 1, help="The seed of all random choices.")]
Column = Annotated[str, Option(help="The column that holds the texts.")]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting of the recipe, such as training.steps=100; --training.steps 100 and"
        " training.steps=100 mean the same.",
    ),
]


COLLECTION = 50_000
"""New objects before garbage is collected."""


def started() -> None:
    """Collect garbage from now on: what a command imports first makes much, and is none."""
    gc.set_threshold(COLLECTION)


def open_predictor(model: str, device: str = "auto") -> sw.Predictor:
    """Load a saved model onto a device.

    Raises ConfigError when there is no model or no such device.
    """
    predictor = sw.Predictor(model, device=device)
    started()
    return predictor


def open_run(
    run: str,
    device: str = "auto",
    data: Sequence[str] | None = None,
    split: Split = "test",
) -> tuple[sw.Model, ResolvedRecipe]:
    """Load a model onto a device, with the recipe of its run, or with the data of `--data`, which
    are the data of its run where they have the same contents.

    Raises ConfigError when there is no model, no data or no such device.
    """
    from skillweave.inference import loading

    chosen = loading.choose_device(device)
    started()
    if data:
        paths = dict(map(_task_and_path, data))
        model = sw.load(run).to(chosen)
        return model, loading.recipe_for(model, paths, run, split)
    model, recipe = loading.open_run(run)
    return model.to(chosen), recipe


def _task_and_path(given: str) -> tuple[str, str]:
    task, _, path = given.partition("=")
    if not path:
        raise sw.ConfigError(f"--data {given}: write it as TASK=PATH")
    return task, path


def open_recipe(
    name: str, settings: Sequence[str] | None = None, fraction: float | None = None
) -> sw.RecipeConfig:
    """Read a recipe file or a recipe in the package, as `read_recipe`. Raises ConfigError."""
    from skillweave.recipe import find_recipe

    recipe = sw.read_recipe(find_recipe(name), settings or (), fraction)
    started()
    return recipe


def unused_folder(path: str | Path) -> Path:
    """Return a folder to write into. Raises ConfigError when it already holds something."""
    folder = Path(path)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise sw.ConfigError(f"{folder} already exists; choose another with --out, or remove it")
    return folder


def require_writable(path: Path | None) -> None:
    """Raise ConfigError for a file that cannot be written, before the work whose results it is to
    hold."""
    if path is not None and path.is_dir():
        raise sw.ConfigError(f"{path} is a folder; give a file")
    if path is not None and not os.access(path.parent, os.W_OK):
        raise sw.ConfigError(f"{path}: there is no folder {path.parent} to write into")


def is_first_process() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one. It alone
    prints."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"


class Incomplete(Exception):
    """A command did what it could, and something is wrong or missing. `results`: what it found,
    which `--json` writes all the same."""

    exit_status = 2

    def __init__(self, message: str, results: Results) -> None:
        super().__init__(message)
        self.results = results


_visible: ContextVar[TextIO | None] = ContextVar("visible", default=None)
"""Standard output where `--quiet` hides it."""


@contextmanager
def quietly() -> Generator[None]:
    """Hide what is printed in the block, except inside `results_shown`: the option `--quiet`."""
    with Path(os.devnull).open("w") as nowhere:
        before = _visible.set(sys.stdout)
        try:
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
        finally:
            _visible.reset(before)


def results_shown() -> AbstractContextManager[Any]:
    """Within the block, standard output shows what the command was asked for, also with
    `--quiet`."""
    return redirect_stdout(_visible.get() or sys.stdout)

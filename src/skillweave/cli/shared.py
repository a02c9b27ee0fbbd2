"""What several commands share: options, opening a run, and writing files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

import skillweave as sw

Run = Annotated[
    str, Argument(metavar="RUN", help="A run folder, such as runs/quickstart, or a checkpoint.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    Option(help="Where the model runs; auto takes the first available of cuda, mps and cpu."),
]
Json = Annotated[
    Path | None, Option("--json", metavar="FILE", help="Write the figures to this file as well.")
]
Resamples = Annotated[
    int, Option(metavar="N", min=0, help="Resamples for the confidence intervals.")
]
Split = Annotated[Literal["train", "validation", "test"], Option(help="The samples to use.")]
Tasks = Annotated[list[str] | None, Option(metavar="TASK", help="These tasks only.")]
Task = Annotated[str, Option(metavar="TASK", help="The task.")]
Seed = Annotated[int, Option(help="The seed of all random choices.")]
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


def open_model(run: str, device: str) -> tuple[sw.Model, sw.RecipeConfig]:
    """Load a run's model onto a device, and read its recipe.

    Raises ConfigError when there is no run or no such device.
    """
    from skillweave.inference.api import open_run

    chosen = choose_device(device)
    model, recipe = open_run(run)
    return model.to(chosen), recipe


def open_recipe(
    name: str, settings: Sequence[str] | None = None, fraction: float | None = None
) -> sw.RecipeConfig:
    """Read a recipe file or a recipe in the package, as `read_recipe`. Raises ConfigError."""
    from skillweave.recipe import find_recipe

    return sw.read_recipe(find_recipe(name), settings or (), fraction)


def choose_device(name: str) -> str:
    """Return the name of a PyTorch device for `--device`. Raises ConfigError when there is none."""
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    usable = [device for device in available if available[device]]
    if name == "auto":
        return usable[0]
    if name not in usable:
        raise sw.ConfigError(
            f"--device {name}: PyTorch finds no such device here; use one of auto,"
            f" {', '.join(usable)}"
        )
    return name


def unused_folder(path: str | Path) -> Path:
    """Return a folder to write into. Raises ConfigError when it already holds something."""
    folder = Path(path)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise sw.ConfigError(f"{folder} already exists; choose another with --out, or remove it")
    return folder


def write_json(path: Path | None, content: Any) -> None:
    """Write a table as JSON; without a path, do nothing. Raises OSError when writing fails."""
    if path is not None:
        write_whole(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a complete file or none. Raises OSError when writing fails."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)

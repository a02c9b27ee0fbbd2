"""The run folder: its creation, its recipe and environment, and the checks before training."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from skillweave.config import ConfigError
from skillweave.config.reading import parse_yaml
from skillweave.config.training import TrainingConfig
from skillweave.model.folders import CHECKPOINTS_FOLDER
from skillweave.recipe import RECIPE_FILE, RecipeConfig
from skillweave.reporting.logs import METRICS_FILE, SKIPPED_FILE, TENSORBOARD_FOLDER
from skillweave.storage import LOCK_FILE, final_name, lock, write_json, write_text
from skillweave.training.checkpoint import Checkpoints

ENVIRONMENT_FILE = "environment.json"
OF_A_START = {
    RECIPE_FILE,
    ENVIRONMENT_FILE,
    METRICS_FILE,
    SKIPPED_FILE,
    TENSORBOARD_FOLDER,
    CHECKPOINTS_FOLDER,
    LOCK_FILE,
}
"""What a run leaves that ended before its first checkpoint. Another run may replace it."""
MAY_CHANGE = (
    r"name",
    r"output",
    r"training\.(workers|threads|reader_timeout)",
    r"training\.(save_total_limit|asynchronous_checkpoints)",
    r"training\.parallel(\..*)?",
    r"tasks\.[^.]+\.data\.path(\.\w+)?",
)
"""Settings that may change when a run is resumed. The weights do not depend on them, nor on the
place of the data: a fingerprint of the contents is compared, too."""
PACKAGES = (
    "skillweave",
    "torch",
    "numpy",
    "safetensors",
    "tokenizers",
    "lightning-fabric",
    "pillow",
    "av",
    "soxr",
)
BYTES_PER_WEIGHT = 4


def require_free(folder: Path) -> None:
    """Raise ConfigError for a folder in which a new run cannot start: one with a checkpoint, or
    with files of anything but a run that ended before its first checkpoint."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give another output")
    if Checkpoints(folder).steps():
        raise ConfigError(
            f"{folder} already holds a run; continue it with --resume, or give another output"
        )
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    # A run writes environment.json first, so without it the other files are the user's.
    own = OF_A_START if ENVIRONMENT_FILE in names else {ENVIRONMENT_FILE, LOCK_FILE}
    if others := sorted(name for name in names if final_name(name) not in own):
        raise ConfigError(f"{folder} holds other files ({others[0]}); give another output")


def require_checkpoint(folder: Path) -> None:
    """Raise ConfigError for a folder without a run that can be resumed. The message lists what is
    there."""
    if Checkpoints(folder).steps():
        return
    runs = {
        place: steps[-1]
        for place in sorted(folder.parent.glob("*/"))
        if (steps := Checkpoints(place).steps())
    }
    listed = ", ".join(f"{place} (step {step})" for place, step in runs.items()) or "none"
    there = "holds no checkpoint" if folder.is_dir() else "does not exist"
    raise ConfigError(
        f"{folder}: nothing to resume: it {there}. Runs in {folder.parent}: {listed}. Start"
        " without --resume, or give the output of the run"
    )


@contextmanager
def run_folder(recipe: RecipeConfig, resume: bool) -> Generator[None]:
    """Keep other processes out of the run folder of a resolved recipe. A new one gets recipe.yaml
    and environment.json.

    Raises ConfigError if it cannot be written, if another process has it, if a new run finds it
    taken, or if the recipe of a resumed run has changed.
    """
    folder = recipe.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error
    with lock(folder):
        if resume:
            require_same_recipe(recipe)
            write_recipe(recipe)  # with the place of moved data
        else:
            require_free(folder)
            describe_run(recipe)
        yield


def describe_run(recipe: RecipeConfig) -> None:
    """Write recipe.yaml and environment.json of a resolved recipe. Raises ConfigError if they
    cannot be written."""
    try:
        write_json(recipe.folder / ENVIRONMENT_FILE, describe_environment(recipe))
    except OSError as error:
        raise _not_writable(recipe.folder, error) from error
    write_recipe(recipe)


def write_recipe(recipe: RecipeConfig) -> None:
    """Write recipe.yaml of a resolved recipe. Raises ConfigError if it cannot be written."""
    content = recipe.model_dump(mode="json")
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    try:
        write_text(recipe.folder / RECIPE_FILE, text)
    except OSError as error:
        raise _not_writable(recipe.folder, error) from error


def _not_writable(folder: Path, error: OSError) -> ConfigError:
    remedy = "give another output or free some space"
    return ConfigError(f"{folder}: cannot write there ({error.strerror}); {remedy}")


def require_same_recipe(recipe: RecipeConfig) -> None:
    """Raise ConfigError if the resolved recipe differs from the one in the run folder, or if that
    is lost. The message lists the differences."""
    file, stored = recipe.folder / RECIPE_FILE, stored_recipe(recipe.folder)
    found = [
        f"  - {path}: was {before!r}, now {now!r}"
        for path, before, now in differences(_comparable(stored), _comparable(recipe))
        if not any(re.fullmatch(pattern, path) for pattern in MAY_CHANGE)
    ]
    if found:
        raise ConfigError(
            f"{file}: the run cannot be resumed with another recipe; undo these changes, or start a"
            " new run (start_from uses the weights of this one)\n" + "\n".join(found)
        )


def stored_recipe(folder: Path) -> RecipeConfig:
    """The recipe in a run folder. Raises ConfigError if it is lost."""
    file = folder / RECIPE_FILE
    if not file.is_file():
        raise ConfigError(
            f"{file}: no such file, so the run cannot be compared with the recipe; restore it, or"
            " start a new run (start_from uses the weights of this one)"
        )
    return RecipeConfig.parse(parse_yaml(file.read_bytes(), file), str(file))


def _comparable(recipe: RecipeConfig) -> dict[str, Any]:
    """The settings that a resumed run must not change. Where all processes train the same task, the
    samples of a step are those of all of them, whatever their number."""
    content = recipe.model_dump(mode="json")
    if recipe.training.task_sampling == "synchronised":
        del content["training"]["devices"]
        for task in content["tasks"].values():
            name = "batch_tokens" if task["batch_tokens"] else "batch_size"
            task[f"{name} × replicas"] = task.pop(name) * recipe.training.replicas
    return content


def with_batches_of(recipe: RecipeConfig, stored: RecipeConfig) -> RecipeConfig:
    """The recipe with batch sizes that keep the samples of every step of the stored one, if only
    the number of processes is another. Raises ConfigError if there are none."""
    before, now = stored.training.replicas, recipe.training.replicas
    if before == now or recipe.training.task_sampling != "synchronised":
        return recipe
    tasks = dict(recipe.tasks)
    for name, task in recipe.tasks.items():
        setting = "batch_tokens" if task.batch_tokens else "batch_size"
        given = getattr(task, setting)
        if name not in stored.tasks or given != getattr(stored.tasks[name], setting):
            continue
        size, rest = divmod(given * before, now)
        if rest:
            unit = "tokens" if task.batch_tokens else "samples"
            raise ConfigError(
                f"training.devices: the run has {before} replicas, and a step of task {name} has"
                f" {given * before} {unit} in all, which {now} replicas cannot divide;"
                " resume with a number that can"
            )
        tasks[name] = task.model_copy(update={setting: size})
    return recipe.model_copy(update={"tasks": tasks})


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, value before, value now) of each leaf that differs; None for an absent value."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield path, before, now


def require_space(
    folder: Path, model: nn.Module, assets: dict[str, bytes], config: TrainingConfig
) -> None:
    """Raise ConfigError if the disk has no room for the checkpoints: `save_total_limit` of them,
    the best one, and the one that is being written."""
    limit, bytes_each = config.save_total_limit, BYTES_PER_WEIGHT + config.optimizer.state_bytes
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = parameters * bytes_each + sum(map(len, assets.values()))
    needed, free = size * (limit + 2), shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{folder}: {free / 1e9:.2f} GB free, but checkpoints of {size / 1e9:.2f} GB need"
            f" {needed / 1e9:.2f} GB (training.save_total_limit {limit}, the best and"
            " the one being written); free some space or give another output"
        )


def describe_environment(recipe: RecipeConfig) -> dict[str, Any]:
    """Versions, code revision and hardware of a run."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "revision": _revision(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": recipe.training.threads or torch.get_num_threads(),
        "processes": recipe.training.devices,
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The git revision of the working directory, if it is in a repository."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _processor() -> str:
    """Name of the processor. `platform.processor()` does not know it on Linux."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()

"""The run folder: its creation, its recipe and environment, and the checks before training."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from skillweave.config import ConfigError
from skillweave.config.reading import parse_yaml
from skillweave.recipe import RecipeConfig
from skillweave.training.checkpoint import PARTIAL, write_atomically

RECIPE_FILE = "recipe.yaml"
ENVIRONMENT_FILE = "environment.json"
MAY_CHANGE = (
    "name",
    "output",
    "training.workers",
    "training.threads",
    "training.save_total_limit",
)
"""Settings that may change when a run is resumed. The weights do not depend on them."""
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
BYTES_PER_PARAMETER = 3 * 4
"""A weight and AdamW's two running means, in float32."""


def is_run(folder: Path, resume: bool) -> bool:
    """Whether a folder holds a run. Raises ConfigError unless the folder is free, or holds a run
    that is resumed."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give another output")
    if (folder / RECIPE_FILE).is_file():
        if not resume:
            raise ConfigError(
                f"{folder} already holds a run; continue it with --resume, or give another output"
            )
        return True
    if folder.is_dir() and any(entry.suffix != PARTIAL for entry in folder.iterdir()):
        raise ConfigError(f"{folder} holds other files and no {RECIPE_FILE}; give another output")
    return False


def create_run_folder(recipe: RecipeConfig) -> None:
    """Create the run folder of a resolved recipe, with recipe.yaml and environment.json.

    Raises ConfigError if it cannot be written.
    """
    folder = recipe.folder
    text = yaml.safe_dump(
        recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120
    )
    environment = json.dumps(describe_environment(recipe), indent=1, ensure_ascii=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ENVIRONMENT_FILE, environment + "\n")
        # Last, because this file marks the folder as a run.
        write_atomically(folder / RECIPE_FILE, text)
    except OSError as error:
        remedy = "give another output or free some space"
        raise ConfigError(f"{folder}: cannot write there ({error.strerror}); {remedy}") from error


def remove_unused(folder: Path) -> None:
    """Remove a run folder in which no step was done, so that the corrected recipe can use it."""
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file() or not metrics.stat().st_size:
        shutil.rmtree(folder)


def require_same_recipe(recipe: RecipeConfig) -> None:
    """Raise ConfigError if the resolved recipe differs from the one in the run folder. The message
    lists the differences."""
    file = recipe.folder / RECIPE_FILE
    stored = RecipeConfig.parse(parse_yaml(file.read_bytes(), file), str(file))
    found = [
        f"  - {path}: was {before!r}, now {now!r}"
        for path, before, now in differences(
            stored.model_dump(mode="json"), recipe.model_dump(mode="json")
        )
        if path not in MAY_CHANGE
    ]
    if found:
        raise ConfigError(
            f"{file}: the run cannot be resumed with another recipe; undo these changes, or start a"
            " new run (start_from uses the weights of this one)\n" + "\n".join(found)
        )


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, value before, value now) of each leaf that differs; None for an absent value."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield path, before, now


def require_space(
    folder: Path, model: nn.Module, assets: dict[str, bytes], save_total_limit: int
) -> None:
    """Raise ConfigError if the disk has no room for the checkpoints: `save_total_limit` of them,
    the best one, and the one that is being written."""
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = parameters * BYTES_PER_PARAMETER + sum(map(len, assets.values()))
    needed, free = size * (save_total_limit + 2), shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{folder}: {free / 1e9:.2f} GB free, but checkpoints of {size / 1e9:.2f} GB need"
            f" {needed / 1e9:.2f} GB (training.save_total_limit {save_total_limit}, the best and"
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

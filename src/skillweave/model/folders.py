"""Where a model lies on disk, and how another begins from its configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from skillweave.components.targets import TARGETS
from skillweave.config.base import ConfigError, choose
from skillweave.config.reading import read_object
from skillweave.config.registry import Registry, load_plugins
from skillweave.config.streams import ASSETS_FOLDER
from skillweave.storage import CHECKSUMS_FILE

CONFIG_FILE = "config.json"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
"""`org/name`, or only the name for the oldest models; after an @ a commit, a branch or a tag."""
CHECKPOINTS_FOLDER = "checkpoints"
"""Where a run keeps its checkpoints `step-XXXXXXXX`."""
PACKAGED = "skillweave"
"""What stands before the `/` in the name of a model that is installed with the package."""
OF_ITS_TASKS = ("tasks", "sliced", "preset", "limits", "precision")
"""What a model's configuration says of the tasks that it was trained on."""


def packaged_models() -> dict[str, Path]:
    """Name of a model that is installed with the package, such as `skillweave/tiny` → its
    folder."""
    root = Path(str(files("skillweave") / "pretrained"))
    return {f"{PACKAGED}/{file.parent.name}": file.parent for file in root.glob(f"*/{CONFIG_FILE}")}


def packaged_folder(source: str | Path) -> Path | None:
    """The folder of a model that is installed with the package; None for any other source, and
    where there is a folder of this name. Raises ConfigError for a name that no model has."""
    name = str(source)
    if not re.fullmatch(rf"{PACKAGED}/[\w.-]+", name) or Path(name).exists():
        return None
    return choose(packaged_models(), name, "model of the package")


def model_folder(path: str | Path) -> Path:
    """The folder that holds a model: `path` itself, or a run's `best`, or its `last` when there is
    no best.

    Raises ConfigError when there is none, or one of Hugging Face's.
    """
    return model_folders(path)[0]


def model_folders(path: str | Path) -> list[Path]:
    """The folder that holds a model, and after it those that can stand in for it: the other
    checkpoints of a run, the newest first. Raises ConfigError as `model_folder` does."""
    folder = packaged_folder(path) or Path(path)
    if (folder / CONFIG_FILE).is_file():
        return [_require_own(folder)]
    checkpoints = sorted(folder.glob(f"{CHECKPOINTS_FOLDER}/step-*"), reverse=True)
    found: dict[Path, Path] = {}
    for candidate in (folder / "best", folder / "last", *checkpoints):
        if any((candidate / name).is_file() for name in (CONFIG_FILE, CHECKSUMS_FILE)):
            found.setdefault(candidate.resolve(), _require_own(candidate))
    if found:
        return list(found.values())
    if not folder.exists():
        raise ConfigError(
            f"{folder}: no such folder; train a run first, or give the path of a run or model"
            " folder"
        )
    raise ConfigError(
        f"{folder}: holds no model ({CONFIG_FILE} is neither there nor in best/ or last/)"
    )


def _require_own(folder: Path) -> Path:
    if theirs := hf_model_type(folder):
        raise ConfigError(
            f"{folder}: a Hugging Face model ({theirs}); convert it first: skillweave convert"
            f" {folder} --out DIR"
        )
    return folder


def hf_model_type(folder: Path) -> str | None:
    """The `model_type` of a folder of Hugging Face's transformers; None for any other folder."""
    file = folder / CONFIG_FILE
    text = file.read_text("utf-8", "replace") if file.is_file() else ""
    with suppress(ValueError):  # a damaged file of theirs has a model_type too
        if "streams" in json.loads(text):  # ours; a backbone in it has one
            return None
    found = re.search(r'"model_type"\s*:\s*"([^"]*)"', text)
    return found[1] if found else None


def is_hf_model(source: str | Path) -> bool:
    """Whether `source` is a Hugging Face model folder, or the id of a model of the hub: `a/b` if
    there is no folder `a` here, and the package has no model of this name."""
    folder = Path(source)
    if folder.is_dir():
        return hf_model_type(folder) is not None
    if packaged_folder(source):
        return False
    name = str(source)
    return "/" in name and HUB_ID.fullmatch(name) is not None and not folder.parent.is_dir()


CONVERTERS: Registry[Callable[[str], Path]] = Registry("library whose models are converted")
"""Library → a function that makes a model folder of one of its models."""


def own_folder(source: str) -> str:
    """A model to start from: `source`, the folder of a model that is installed with the package, or
    the folder that a model of Hugging Face is converted to. Raises ConfigError or WeightsError if
    it cannot be converted."""
    if not is_hf_model(source):
        return str(packaged_folder(source) or source)
    load_plugins()
    return str(CONVERTERS["huggingface"](source))


def find_asset(source: str, asset: str) -> Path | None:
    """An asset of a run, a model folder, or a model of Hugging Face; None where there is none."""
    if not Path(source).is_dir() and not is_hf_model(source):
        return None
    file = (model_folder(own_folder(source)) / ASSETS_FOLDER / asset).resolve()
    return file if file.is_file() else None


def begin_from(path: str | Path) -> dict[str, Any]:
    """The configuration of a run's model, or of a model folder, without what its own tasks and
    their labels gave it.

    Raises ConfigError as `model_folder` does, and for a file that is no JSON.
    """
    file = model_folder(path) / CONFIG_FILE
    data = read_object(file)
    targets = {}
    for name, target in data.get("targets", {}).items():
        fitted = TARGETS.find(target.get("kind", name)).fitted
        targets[name] = {key: value for key, value in target.items() if key not in fitted}
    kept = {key: value for key, value in data.items() if key not in OF_ITS_TASKS}
    return {**kept, "targets": targets}

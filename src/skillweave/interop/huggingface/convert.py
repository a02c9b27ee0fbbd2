"""Conversion of model folders, in the direction that their content asks for."""

from __future__ import annotations

from pathlib import Path

from skillweave.config import ConfigError
from skillweave.interop.huggingface.exporter import export_folder
from skillweave.interop.huggingface.folder import find_folder
from skillweave.interop.huggingface.importer import import_folder
from skillweave.model.folders import hf_model_type, model_folder


def convert_folder(model_path: str | Path, out: Path, family: str | None = None) -> str:
    """Convert a Hugging Face model, from a folder or the hub, or one of our models or runs, and
    return a line that says what was written.

    Raises ConfigError and WeightsError as `from_hf` and `to_hf` do.
    """
    folder = find_folder(model_path)
    if hf_model_type(folder) is None:
        return export_folder(model_folder(folder), out, family)
    if family:
        raise ConfigError(
            f"{folder} is a Hugging Face model, so its family is known; leave --family out"
        )
    return import_folder(folder, out)

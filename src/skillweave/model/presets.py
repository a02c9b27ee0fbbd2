"""Configurations of published models, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def find_model(name: str | Path) -> Path | None:
    """The file of a model's configuration: JSON, or that of a preset's name, such as `bert-base`;
    None for anything else."""
    path = Path(name)
    return path if path.suffix == ".json" else None if path.exists() else presets().get(str(name))


def presets() -> dict[str, Path]:
    """Name of a published model → the file of its configuration."""
    return {
        file.stem: file
        for file in sorted(Path(str(files("skillweave") / "presets")).glob("*.yaml"))
    }

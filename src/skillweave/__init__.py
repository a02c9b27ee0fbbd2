"""skillweave: one compact model for many tasks over text, image, sound, video and code.

Names are loaded when they are first used, so that `import skillweave` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skillweave.api import encode, load, with_tuning
    from skillweave.batch import Attention, Batch, Example, Features, Layout, Modality, Role, Span
    from skillweave.carving import carve
    from skillweave.config import ConfigError, ModelConfig, RecipeConfig, read_recipe
    from skillweave.evaluation.interference import Interference, interference
    from skillweave.interop import from_hf, to_hf
    from skillweave.model import Model, Output
    from skillweave.training import train
    from skillweave.upcycling import upcycle

__version__ = "0.1.0"

_HOME = {
    "Attention": "batch",
    "Batch": "batch",
    "ConfigError": "config",
    "Example": "batch",
    "Features": "batch",
    "Interference": "evaluation.interference",
    "Layout": "batch",
    "Modality": "batch",
    "Model": "model",
    "ModelConfig": "config",
    "Output": "model",
    "RecipeConfig": "config",
    "Role": "batch",
    "Span": "batch",
    "carve": "carving",
    "encode": "api",
    "from_hf": "interop",
    "interference": "evaluation.interference",
    "load": "api",
    "read_recipe": "config",
    "to_hf": "interop",
    "train": "training",
    "upcycle": "upcycling",
    "with_tuning": "api",
}

__all__ = [
    "Attention",
    "Batch",
    "ConfigError",
    "Example",
    "Features",
    "Interference",
    "Layout",
    "Modality",
    "Model",
    "ModelConfig",
    "Output",
    "RecipeConfig",
    "Role",
    "Span",
    "carve",
    "encode",
    "from_hf",
    "interference",
    "load",
    "read_recipe",
    "to_hf",
    "train",
    "upcycle",
    "with_tuning",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'skillweave' has no attribute {name!r}")
    return getattr(import_module(f"skillweave.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

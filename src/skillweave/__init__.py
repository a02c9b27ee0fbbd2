"""skillweave: one compact model for many tasks over text, image, sound, video and code.

Names are loaded when they are first used, so that `import skillweave` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skillweave.analysis.interference import Interference, interference
    from skillweave.batch import Attention, Batch, Example, Features, Layout, Modality, Role, Span
    from skillweave.config import ConfigError
    from skillweave.inference import Predictor, encode, generate, load, predict, with_tuning
    from skillweave.interop.huggingface import from_hf, to_hf
    from skillweave.model.config import ModelConfig
    from skillweave.model.model import Model, Output
    from skillweave.recipe import RecipeConfig, read_recipe
    from skillweave.retrieval.index import Index
    from skillweave.surgery.carve import carve
    from skillweave.surgery.upcycle import upcycle
    from skillweave.training import train

__version__ = "0.1.0"

_HOME = {
    "Attention": "batch",
    "Batch": "batch",
    "ConfigError": "config",
    "Example": "batch",
    "Features": "batch",
    "Interference": "analysis.interference",
    "Index": "retrieval.index",
    "Layout": "batch",
    "Modality": "batch",
    "Model": "model.model",
    "ModelConfig": "model.config",
    "Output": "model.model",
    "Predictor": "inference",
    "RecipeConfig": "recipe",
    "Role": "batch",
    "Span": "batch",
    "carve": "surgery.carve",
    "encode": "inference",
    "from_hf": "interop.huggingface",
    "generate": "inference",
    "interference": "analysis.interference",
    "load": "inference",
    "predict": "inference",
    "read_recipe": "recipe",
    "to_hf": "interop.huggingface",
    "train": "training",
    "upcycle": "surgery.upcycle",
    "with_tuning": "inference",
}

__all__ = [
    "Attention",
    "Batch",
    "ConfigError",
    "Example",
    "Features",
    "Index",
    "Interference",
    "Layout",
    "Modality",
    "Model",
    "ModelConfig",
    "Output",
    "Predictor",
    "RecipeConfig",
    "Role",
    "Span",
    "carve",
    "encode",
    "from_hf",
    "generate",
    "interference",
    "load",
    "predict",
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

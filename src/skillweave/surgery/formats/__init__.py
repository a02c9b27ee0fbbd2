"""Formats in which a model is used without skillweave: one class each, registered by its name."""

from skillweave.surgery.formats.base import FORMATS, Exported, Format, export_model
from skillweave.surgery.formats.ctranslate2 import CTranslate2
from skillweave.surgery.formats.gguf import Gguf
from skillweave.surgery.formats.graphs import Int8, Onnx, TorchExport

__all__ = [
    "FORMATS",
    "CTranslate2",
    "Exported",
    "Format",
    "Gguf",
    "Int8",
    "Onnx",
    "TorchExport",
    "export_model",
]

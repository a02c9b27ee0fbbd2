"""Weights, configurations and processors of Hugging Face Transformers, in both directions."""

from skillweave.interop.huggingface.convert import convert_folder
from skillweave.interop.huggingface.exporter import to_hf
from skillweave.interop.huggingface.importer import from_hf

__all__ = ["convert_folder", "from_hf", "to_hf"]

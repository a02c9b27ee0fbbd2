"""Weights, configurations and processors both ways with Hugging Face Transformers."""

from skillweave.interop.huggingface.convert import convert_folder, from_hf, to_hf

__all__ = ["convert_folder", "from_hf", "to_hf"]

"""Weights and configurations both ways with Hugging Face Transformers: one engine, and a short file a family."""

from skillweave.interop.convert import convert_folder, from_hf, to_hf

__all__ = ["convert_folder", "from_hf", "to_hf"]

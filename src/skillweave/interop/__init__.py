"""Weights and configurations both ways with Hugging Face Transformers: one engine, and a short file a family."""

from skillweave.interop.convert import from_hf, to_hf

__all__ = ["from_hf", "to_hf"]

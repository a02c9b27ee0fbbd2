"""Weights and configurations both ways with Hugging Face Transformers, and from TencentPretrain: one engine, key maps as data."""

from skillweave.interop.convert import convert_folder, from_hf, to_hf
from skillweave.interop.tencent import from_tencent

__all__ = ["convert_folder", "from_hf", "from_tencent", "to_hf"]

"""Weights on disk: safetensors, partial reads and adapters."""

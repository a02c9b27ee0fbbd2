"""Layers of encoders and decoders. They take numbers and submodules; only routes read their
configuration."""

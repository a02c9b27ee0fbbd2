"""Layers: what encoders and decoders are made of. They take plain numbers and ready submodules,
never a configuration."""

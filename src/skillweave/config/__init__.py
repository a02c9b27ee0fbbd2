"""Configuration: validated, immutable, with a docstring under every field."""

from skillweave.config.base import Config, ConfigError, choose, nearest

__all__ = ["Config", "ConfigError", "choose", "nearest"]

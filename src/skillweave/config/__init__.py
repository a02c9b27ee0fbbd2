"""Configuration: validated, immutable, with a docstring under every field."""

from skillweave.config.base import Config, choose, nearest
from skillweave.config.errors import ConfigError

__all__ = ["Config", "ConfigError", "choose", "nearest"]

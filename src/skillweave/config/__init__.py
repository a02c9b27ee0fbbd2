"""Configuration: validated, immutable, with a docstring under every field."""

from skillweave.config.base import Config, ConfigError, choose, nearest
from skillweave.config.model import ModelConfig
from skillweave.config.recipe import RecipeConfig, find_recipe, read_recipe

__all__ = ["Config", "ConfigError", "ModelConfig", "RecipeConfig", "choose", "find_recipe", "nearest", "read_recipe"]

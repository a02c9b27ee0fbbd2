"""Model configurations as other libraries write them. A reader registers itself here and gives our
own settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from skillweave.config.registry import Registry, load_plugins


class ConfigFormat(NamedTuple):
    """`recognises`: whether a mapping is of this format. `read`: the settings of a `ModelConfig`;
    raises ConfigError."""

    recognises: Callable[[Any], bool]
    read: Callable[[Mapping[str, Any]], dict[str, Any]]


FORMATS: Registry[ConfigFormat] = Registry("format of model configurations")


def as_own(data: Any) -> Any:
    """The settings of a mapping of whatever format; one that no format recognises is taken to be
    our own."""
    load_plugins()
    found = next((one for one in FORMATS.values() if one.recognises(data)), None)
    return found.read(data) if found else data

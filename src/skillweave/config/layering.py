"""Recipes that begin from others: YAML mappings merged over one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skillweave.config.base import Config, ConfigError, children_of, members_of
from skillweave.config.reading import parse_yaml
from skillweave.config.variants import remaining


def load_yaml(
    file: Path, model: type[Config] | None = None, seen: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """A YAML mapping merged over its `base` files. `model`: the class that it configures."""
    if not file.is_file():
        raise ConfigError(
            f"{file}: no such recipe; give a YAML file, or the name of a recipe in the package such"
            " as quickstart"
        )
    if file.resolve() in seen:
        raise ConfigError(f"{file}: a recipe cannot be its own base ({' → '.join(map(str, seen))})")
    data = parse_yaml(file.read_bytes(), file) or {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{file}: a recipe is a mapping with model, tasks and training, not a"
            f" {type(data).__name__}"
        )
    bases = data.pop("base", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        below = file.parent / base
        if not below.is_file():
            raise ConfigError(
                f"{file}: base {base!r} is not there; write its path, counted from {file.parent}"
            )
        merged = merge(merged, load_yaml(below, model, (*seen, file.resolve())), model)
    return merge(merged, data, model)


def merge(below: dict[str, Any], above: dict[str, Any], *classes: Any) -> dict[str, Any]:
    """`above` over `below`: mappings merge, other values replace, and null removes a mapping (a
    task, a stream).

    `classes`: the configuration class of the settings. Where a setting of it is a union, and
    `above` names another member than `below`, the options that this one does not have are removed.
    So is what `below` tells of a setting that `above` replaces (`Config.describes`).
    """
    told = {
        field
        for kind in classes
        for field, setting in getattr(kind, "describes", {}).items()
        if setting in above
    }
    result = {key: value for key, value in below.items() if key not in told}
    for key, value in above.items():
        under = result.get(key)
        if value is None and isinstance(under, dict):
            result.pop(key)
        elif isinstance(value, dict) and isinstance(under, dict):
            nested = [
                member
                for kind in classes
                for child in children_of(kind, key)
                for member in members_of(child)
            ]
            result[key] = merge(remaining(under, value, nested), value, *nested)
        else:
            result[key] = value
    return result


def nest(keys: list[str], value: Any) -> dict[str, Any]:
    """`{a: {b: value}}` for keys [a, b]."""
    for key in reversed(keys):
        value = {key: value}
    return value

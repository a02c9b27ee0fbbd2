"""Names of the class labels in datasets of Hugging Face, which store the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Features = Mapping[str, Any]
"""Column → its feature, as the library datasets writes it in JSON."""


def labelled(features: Features) -> Features:
    """The features that hold class labels, at any depth."""
    return {name: one for name, one in features.items() if '"ClassLabel"' in json.dumps(one)}


def with_names(feature: Any, value: Any) -> Any:
    """A value with the names of its class labels, in lists and structures too. None for a withheld
    label (-1)."""
    if feature is None or value is None:
        return value
    inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
    if isinstance(value, list):
        return [with_names(inner, one) for one in value]
    if isinstance(value, dict):
        return {name: with_names(inner.get(name), one) for name, one in value.items()}
    if feature.get("_type") != "ClassLabel" or not isinstance(value, int):
        return value
    names = feature["names"]
    return None if value < 0 else names[value] if value < len(names) else value

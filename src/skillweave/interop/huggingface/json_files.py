"""JSON files of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skillweave.config.reading import read_object as read_json

__all__ = ["read_json", "write_json"]


def write_json(file: Path, data: dict[str, Any]) -> None:
    """Write an object to a file."""
    file.write_text(json.dumps(data, ensure_ascii=False, indent=2), "utf-8")

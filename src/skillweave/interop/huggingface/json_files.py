"""JSON files of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError


def read_json(file: Path) -> dict[str, Any]:
    """The object in a file; an empty one if there is no file. Raises ConfigError for anything
    else."""
    if not file.is_file():
        return {}
    try:
        data = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not valid JSON ({error}); download or save it again") from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{file}: expected a JSON object such as transformers writes, not {type(data).__name__}"
        )
    return data


def write_json(file: Path, data: dict[str, Any]) -> None:
    """Write an object to a file."""
    file.write_text(json.dumps(data, ensure_ascii=False, indent=2), "utf-8")

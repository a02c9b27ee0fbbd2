"""The logs of a run, which training writes and the report shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skillweave.storage import read_lines

EVALUATION_FILE = "evaluation.json"
METRICS_FILE, SKIPPED_FILE = "metrics.jsonl", "skipped.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
DATA_KIND = "data"
"""Kind of the line in metrics.jsonl with the number of training samples of each task."""
FIELDS: dict[str, dict[str, type]] = {
    METRICS_FILE: {"step": int, "kind": str},
    SKIPPED_FILE: {"step": int, "task": str, "key": str, "reason": str},
}
"""File → what each of its lines has at least."""


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log; none if there is no file. Damaged lines are left out with a warning."""
    return read_lines(file, FIELDS[file.name])

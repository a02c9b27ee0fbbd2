"""Write answers as they are made: lines of JSON on the screen or in a file, or a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from skillweave.config import ConfigError
from skillweave.config.names import printable


class Writer:
    """Each input's own columns and its answer.

    A column of the input with the name of an answer keeps it; the answer's is then
    `predicted_NAME`. JSON lines are written at once, so that an interruption loses none; a Parquet
    file is complete or not there. `out`: a .jsonl or .parquet file; standard output when None.
    Raises ConfigError for another kind of file.
    """

    def __init__(self, out: str | Path | None) -> None:
        self.path = None if out is None else Path(out)
        if self.path is not None and self.path.suffix not in (".jsonl", ".parquet"):
            raise ConfigError(f"{out}: predictions are written as .jsonl or .parquet")
        self.rows: list[dict[str, Any]] = []
        self.file: Any = None

    def __enter__(self) -> Self:
        if self.path is not None and self.path.suffix == ".jsonl":
            self.file = self.path.open("w", encoding="utf-8")
        return self

    def write(self, own: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Write one row."""
        named = {f"predicted_{n}" if n in own else n: value for n, value in answer.items()}
        row = {**own, **named}
        if self.path is not None and self.file is None:
            self.rows.append(row)
            return
        line = json.dumps(row, ensure_ascii=False, default=str)
        print(line if self.file else printable(line), file=self.file, flush=True)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.file is not None:
            self.file.close()
        elif self.path is not None and self.rows and kind is None:
            _write_parquet(self.rows, self.path)


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow.parquet  # only where it is asked for

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    partial = Path(f"{path}.partial")
    pyarrow.parquet.write_table(table, partial)
    partial.replace(path)

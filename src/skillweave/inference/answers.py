"""Write answers as they are made: lines of JSON on the screen or in a file, or a Parquet file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from skillweave.config import ConfigError
from skillweave.config.names import printable
from skillweave.storage import replacing


class Writer:
    """Each input's own columns and its answer.

    A column of the input with the name of an answer keeps it; the answer's is then
    `predicted_NAME`. `out`: a .jsonl or .parquet file; standard output when None.

    Every answer is in a file as soon as it is made. A Parquet file is complete or not there: until
    then the answers are in `OUT.jsonl`, where they stay after an error. Raises ConfigError for
    another kind of file, for a file that is being read (`source`), and for answers in `OUT.jsonl`
    that an earlier call left.
    """

    def __init__(self, out: str | Path | None, source: str | Path | None = None) -> None:
        self.path = None if out is None else Path(out)
        self.lines, self.rows, self.file = self.path, [], None
        self.count = 0
        if self.path is None:
            return
        if self.path.suffix not in (".jsonl", ".parquet"):
            raise ConfigError(f"{out}: predictions are written as .jsonl or .parquet")
        if source is not None and self.path.resolve() == Path(source).resolve():
            raise ConfigError(f"{out}: holds the inputs; write the answers to another file")
        if self.is_parquet:
            self.lines = Path(f"{out}.jsonl")
            if self.lines.exists():
                raise ConfigError(
                    f"{self.lines}: holds the answers of a call that did not end; move or remove it"
                )

    @property
    def is_parquet(self) -> bool:
        """Whether the answers become a Parquet file."""
        return self.path is not None and self.path.suffix == ".parquet"

    def __enter__(self) -> Self:
        if self.lines is not None:
            self.file = self.lines.open("wb", buffering=0)
        return self

    def write(self, own: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Write one row. Raises OSError that says how many rows are written if the disk is full."""
        named = {f"predicted_{n}" if n in own else n: value for n, value in answer.items()}
        row = {**own, **named}
        text = json.dumps(row, ensure_ascii=False, default=str)
        if self.file is None:
            print(printable(text), flush=True)
            return
        end = self.file.tell()
        try:
            rest = memoryview(f"{printable(text)}\n".encode())
            while rest:
                rest = rest[self.file.write(rest) :]
        except BaseException as error:
            with suppress(OSError):  # so that no line is cut
                self.file.truncate(end)
            if not isinstance(error, OSError):
                raise
            told = f"{error.strerror}; the {self.count:,} answers before are written"
            raise OSError(error.errno, told, str(self.lines)) from error
        self.count += 1
        if self.is_parquet:
            self.rows.append(row)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.file is not None:
            self.file.close()
        if not self.is_parquet or self.path is None or self.lines is None:
            return
        try:
            if error is None and self.rows:
                _write_parquet(self.rows, self.path)
                self.rows = []
        finally:
            if self.rows:
                print(f"{self.lines}: the {self.count:,} answers so far", file=sys.stderr)
            else:
                self.lines.unlink()


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow.parquet  # only where it is asked for

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column(name, [row.get(name) for row in rows]) for name in names}
    with replacing(path) as partial:
        pyarrow.parquet.write_table(pyarrow.table(columns), partial)


def _column(name: str, values: Sequence[Any]) -> Any:
    """The values as a column: of their own type, or, where they have several, as texts."""
    import pyarrow

    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
        kinds = ", ".join(sorted({type(value).__name__ for value in values if value is not None}))
        print(f"column {name!r} holds {kinds}; it is written as texts", file=sys.stderr)
    texts = [
        value if isinstance(value, str | None) else json.dumps(value, default=str)
        for value in values
    ]
    return pyarrow.array(
        [text and printable(text) for text in texts],
        pyarrow.string(),
    )

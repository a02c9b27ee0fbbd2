"""The work on one unit in one stage: read its rows, do the steps, write what is left.

A unit's folder has `rows.parquet` (the rows that go on), `dropped.parquet` (a line for each row
that left, with step and reason), `stats.json`, and, before a step that must see all rows,
`block-N.npy` and `ids.parquet`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skillweave.config.base import ConfigError
from skillweave.corpus.plan import (
    DROPPED_FILE,
    IDS_FILE,
    ROWS_FILE,
    STATS_FILE,
    Plan,
    Stage,
)
from skillweave.corpus.sources import Unread
from skillweave.corpus.step import Drop, Result, Row, Step
from skillweave.corpus.tokens import count_tokens
from skillweave.storage import replacing, write_json

BATCH_ROWS, BATCH_BYTES = 256, 8 * 2**20
"""A batch of rows ends at either."""
BLOCK_ROWS = 2**16
"""Rows of a block of a step that must see all rows."""
READ = "read"
"""What the report calls the reading of sources, where rows are dropped as well."""
DROPPED_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "step", "reason", "detail")]
)
SHOWN = 400
"""Characters of a dropped row that the report shows."""


class StepFailed(RuntimeError):
    """A step raised an error; the message names step and row."""

    exit_status = 1


@dataclass
class Counts:
    """What a step did to the rows of a unit. `bytes`: of texts that it was given. `made`: rows more
    than it was given, where it makes several of one. `samples`: reason → a few dropped rows."""

    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    changed: int = 0
    made: int = 0
    dropped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, other: Mapping[str, Any], most: int) -> None:
        """Add what was counted elsewhere; keep so many samples."""
        for name in ("rows", "bytes", "seconds", "changed", "made", "dropped"):
            setattr(self, name, getattr(self, name) + other[name])
        self.reasons.update(other["reasons"])
        for reason, samples in other["samples"].items():
            mine = self.samples.setdefault(reason, [])
            mine += samples[: most - len(mine)]


@dataclass
class Contents:
    """What the rows of a source hold (M6, Table 1). `lengths`: texts by the power of two that their
    number of tokens reaches."""

    rows: int = 0
    passages: int = 0
    tokens: int = 0
    characters: int = 0
    text_bytes: int = 0
    pictures: int = 0
    picture_bytes: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)

    def see(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        if row.get("text"):
            tokens = count_tokens(row["text"])
            self.passages += 1
            self.tokens += tokens
            self.characters += len(row["text"])
            self.text_bytes += len(row["text"].encode())
            self.lengths[str(tokens.bit_length())] += 1
            self.languages[row.get("language") or "not identified"] += 1
        if row.get("image"):
            self.pictures += 1
            self.picture_bytes += len(row["image"])

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what was counted elsewhere."""
        for name, value in other.items():
            if isinstance(value, Mapping):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


def schema_of(fields: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema of rows."""
    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in fields.items()])


def merge(step: Step, row: Row, result: Result, known: Iterable[str]) -> list[Row | Drop]:
    """The rows that a result makes of a row, and drops. Raises ConfigError for a result that is
    none, and for fields that the step does not declare."""
    if result is None:
        return [row]
    if isinstance(result, Drop):
        return [result]
    if isinstance(result, Mapping):
        _require_declared(step, result, known)
        return [{**row, **result}]
    if isinstance(result, Sequence) and not isinstance(result, str | bytes):
        made: list[Row | Drop] = []
        for number, part in enumerate(result):
            if not isinstance(part, Drop):
                _require_declared(step, part, known)
                part = {**row, **part, "id": f"{row['id']}#{number}"}
            made.append(part)
        return made
    raise ConfigError(
        f"step {step.title!r} returned {type(result).__name__}; return a mapping of fields that"
        " change, a Drop, a list of mappings, or None"
    )


def _require_declared(step: Step, result: Any, known: Iterable[str]) -> None:
    if not isinstance(result, Mapping):
        raise ConfigError(
            f"step {step.title!r} returned a list with {type(result).__name__}; its members are"
            " mappings and Drops"
        )
    for name in result:
        if name not in known:
            raise ConfigError(
                f"step {step.title!r} returned the field {name!r}, which it does not declare; add"
                f" it to `writes`, such as {{{name!r}: 'string'}}"
            )


class UnitWork:
    """The rows of a unit on their way through a stage."""

    def __init__(self, plan: Plan, stage: Stage, folder: Path) -> None:
        self.plan, self.stage, self.folder = plan, stage, folder
        config = plan.config
        last = stage.collecting is None
        self.fields = config.fields(None if last else stage.collecting)
        self.known = {
            **config.input_fields(),
            **{k: v for s in config.steps for k, v in s.writes.items()},
        }
        self.counts: dict[str, Counts] = {}
        self.contents: dict[str, Contents] = {}
        self.rows = 0
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._dropped: list[dict[str, str]] = []
        self._collected: list[NDArray[Any]] = []
        self._ids: list[str] = []
        self._blocks: list[int] = []

    def run(self, unit: int) -> None:
        """Do the steps to all rows of a unit, and write the results."""
        passing = batches(self._read(unit))
        for step in self.plan.steps_of(self.stage):
            passing = self._through(step, passing)
        for rows in passing:
            self._write(rows)
        self._finish()

    def _through(self, step: Step, passing: Iterator[list[Row]]) -> Iterator[list[Row]]:
        """The batches that a step leaves. What a step makes of a row can be large, so rows go
        through such a step one by one, and then form batches anew."""
        if step.expands:
            rows = (row for batch in passing for row in batch)
            yield from batches(made for row in rows for made in self.apply(step, [row], step.run))
        else:
            for batch in passing:
                yield self.apply(step, batch, step.run)

    def _read(self, unit: int) -> Iterator[Row]:
        if self.stage.judging is None:
            yield from self._read_sources(unit)
        else:
            yield from self._read_judged(unit)

    def _read_sources(self, unit: int) -> Iterator[Row]:
        counts = self.counts[READ] = Counts()
        begun = time.perf_counter()
        for row in source_rows(self.plan, unit):
            counts.seconds += time.perf_counter() - begun
            counts.rows += 1
            if isinstance(row, tuple):
                where, unread = row
                self._drop(counts, READ, where, Drop(unread.reason, unread.detail))
            else:
                counts.bytes += row_bytes(row)
                yield row
            begun = time.perf_counter()
        counts.seconds += time.perf_counter() - begun

    def _read_judged(self, unit: int) -> Iterator[Row]:
        place = self.stage.judging
        assert place is not None
        step = self.plan.corpus_step(place)
        before = self.plan.unit_folder(self.stage.number - 1, unit)
        first = self.plan.unit_starts(self.stage.number - 1)[unit]
        records = read_records(self.plan, place, unit)
        numbered = zip(count(first), records, strict=False)
        for rows in read_rows(before / ROWS_FILE):
            yield from self.apply(
                step, rows, lambda rows: [step.judge(row, *next(numbered)) for row in rows]
            )

    def apply(
        self, step: Step, rows: list[Row], run: Callable[[list[Row]], Iterable[Result]]
    ) -> list[Row]:
        """The rows that a step leaves."""
        counts = self.counts.setdefault(step.title, Counts())
        counts.rows += len(rows)
        counts.bytes += sum(map(row_bytes, rows))
        begun = time.perf_counter()
        try:
            results = list(run(rows))
        except Exception as error:
            raise failure(step, rows, error) from error
        counts.seconds += time.perf_counter() - begun
        left: list[Row] = []
        for row, result in zip(rows, results, strict=True):
            made = merge(step, row, result, self.known)
            for number, one in enumerate(made):
                if isinstance(one, Drop):
                    several = len(made) > 1
                    where = {**row, "id": f"{row['id']}#{number}"} if several else row
                    self._drop(counts, step.title, where, one)
                else:
                    left.append(one)
            counts.made += len(made) - 1
            counts.changed += (
                len(made) == 1
                and any(made[0].get(name) != row.get(name) for name in ("text", "title"))
                if not isinstance(made[0], Drop)
                else 0
            )
        return left

    def _drop(self, counts: Counts, step: str, row: Row, drop: Drop) -> None:
        counts.dropped += 1
        counts.reasons[drop.reason] += 1
        line = {"id": row["id"], "source": row["source"], "step": step}
        self._dropped.append({**line, "reason": drop.reason, "detail": printable(drop.detail)})
        samples = counts.samples.setdefault(drop.reason, [])
        if len(samples) < self.plan.config.samples:
            text = row.get("text") or row.get("title") or ""
            shown = text[:SHOWN] + ("…" if len(text) > SHOWN else "")
            samples.append(
                {"id": row["id"], "detail": printable(drop.detail)[:SHOWN], "text": shown}
            )

    def _write(self, rows: list[Row]) -> None:
        self.rows += len(rows)
        if rows:
            self._table(ROWS_FILE, schema_of(self.fields), rows)
        if self.stage.collecting is None:
            for row in rows:
                self.contents.setdefault(row["source"], Contents()).see(row)
        else:
            self._collect(rows)
        if len(self._dropped) >= BATCH_ROWS:
            self._flush_dropped()

    def _collect(self, rows: list[Row]) -> None:
        if not rows or self.stage.collecting is None:
            return
        step = self.plan.corpus_step(self.stage.collecting)
        counts = self.counts.setdefault(step.title, Counts())
        begun = time.perf_counter()
        self._collected.append(step.collect(rows))
        counts.seconds += time.perf_counter() - begun
        self._table(IDS_FILE, schema_of({"id": "string"}), [{"id": row["id"]} for row in rows])
        if sum(map(len, self._collected)) >= BLOCK_ROWS:
            self._flush_block()

    def _flush_block(self) -> None:
        if not self._collected or self.stage.collecting is None:
            return
        step = self.plan.corpus_step(self.stage.collecting)
        collected = np.concatenate(self._collected)
        np.save(self.folder / f"block-{len(self._blocks)}.npy", step.pack(collected))
        self._blocks.append(len(collected))
        self._collected = []

    def _flush_dropped(self) -> None:
        self._table(DROPPED_FILE, DROPPED_SCHEMA, self._dropped)
        self._dropped = []

    def _table(self, name: str, schema: pa.Schema, rows: list[Any]) -> None:
        if name not in self._writers:
            self._writers[name] = pq.ParquetWriter(self.folder / name, schema, compression="zstd")
        self._writers[name].write_table(pa.Table.from_pylist(rows, schema))

    def _finish(self) -> None:
        self._flush_block()
        self._flush_dropped()
        self._table(ROWS_FILE, schema_of(self.fields), [])
        for writer in self._writers.values():
            writer.close()
        stats = {
            "rows": self.rows,
            "blocks": self._blocks,
            "steps": {name: dict(vars(counts)) for name, counts in self.counts.items()},
            "sources": {name: dict(vars(found)) for name, found in self.contents.items()},
        }
        write_json(self.folder / STATS_FILE, stats)


def run_unit(plan: Plan, stage: int, unit: int) -> None:
    """Do the work on a unit in a stage, unless it is done. Its folder appears as a whole."""
    folder = plan.unit_folder(stage, unit)
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(folder) as partial:
            partial.mkdir()
            UnitWork(plan, plan.stages[stage], partial).run(unit)
    except OSError:
        if not (folder / STATS_FILE).is_file():  # else another process was faster
            raise


def source_rows(plan: Plan, unit: int) -> Iterator[Row | tuple[Row, Unread]]:
    """The rows of a unit with their provenance; what cannot be read as its provenance and a
    reason."""
    name, parts = plan.units[unit]
    source = plan.config.sources[name]
    read = 0
    for part in parts:
        for row in source.read(part):
            if plan.limit is not None and read >= plan.limit:
                return
            read += 1
            location = row.location if isinstance(row, Unread) else row["location"]
            provenance = {
                "id": f"{name}:{part.file.name}:{location}",
                "source": name,
                "file": part.file.path,
                "page": None if source.archive else part.file.name,
                "location": location,
            }
            if isinstance(row, Unread):
                yield provenance, row
            else:
                yield provenance | {k: v for k, v in row.items() if k not in provenance}


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in lists of at most `BATCH_ROWS` and about `BATCH_BYTES`."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row_bytes(row) + len(row.get("image") or b"")
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def row_bytes(row: Row) -> int:
    """The bytes of the text of a row, or of its page where it has no text yet."""
    text = row.get("text")
    if text is None:
        text = row.get("html") or ""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def read_rows(file: Path) -> Iterator[list[Row]]:
    """The rows of a stage, one batch after the other."""
    table = pq.ParquetFile(file)
    for group in range(table.num_row_groups):
        yield table.read_row_group(group).to_pylist()


def read_records(plan: Plan, place: int, unit: int) -> Iterator[Any]:
    """The records of the rows of a unit."""
    stage = next(stage.number for stage in plan.stages if stage.collecting == place)
    for block in range(len(plan.stats(stage, unit)["blocks"])):
        yield from np.load(plan.decisions_folder(place) / f"{unit:06}-{block}.npy")


def failure(step: Step, rows: Sequence[Row], error: Exception) -> Exception:
    """An error of a step, with the row that causes it."""
    if isinstance(error, ConfigError | OSError | MemoryError):
        return error
    for row in rows:
        try:
            list(step.run([row]))
        except Exception as own:
            return StepFailed(
                f"step {step.title!r} failed on the row {row['id']!r}: {type(own).__name__}: {own};"
                " correct the step, or drop such rows before it"
            )
    return StepFailed(f"step {step.title!r} failed: {type(error).__name__}: {error}")


def printable(text: str) -> str:
    """A text that UTF-8 can express."""
    return text.encode("utf-8", "replace").decode("utf-8")

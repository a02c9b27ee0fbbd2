"""Running a pipeline: over the sources of a configuration, or over a Daft frame."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from skillweave.config.base import ConfigError
from skillweave.corpus import report
from skillweave.corpus.config import CleanConfig, ShardsConfig
from skillweave.corpus.engine import Engine, Workers
from skillweave.corpus.plan import DROPPED_FILE, IDS_FILE, ROWS_FILE, STATE, Plan, Stage
from skillweave.corpus.shards import FOLDER, count_shards, is_written, receipt, shard_file, upload
from skillweave.corpus.sources.tables import Parquet
from skillweave.corpus.step import Blocks, CorpusStep, Drop, Result, Row, Step
from skillweave.corpus.unit import (
    DROPPED_SCHEMA,
    READ,
    failure,
    merge,
    read_records,
    source_rows,
)
from skillweave.storage import (
    CHECKSUMS_FILE,
    LOCK_FILE,
    PARTIAL,
    add_checksums,
    lock,
    open_store,
    read_json,
    remove,
    replacing,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np
    from daft import DataFrame
    from numpy.typing import NDArray

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""
INPUT = "input"
"""The folder in `out` with the rows of a frame."""
UPLOADED_FILE = "uploaded.json"
"""In the state: says that the whole corpus is in the object store."""
SAMPLED_UNITS = 8
"""Units of a source from which a dry run takes rows."""


def clean(
    config: CleanConfig,
    *,
    engine: Engine = "native",
    processes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Clean a corpus into `config.out`, and return its report.

    The same call again continues where an interrupted one stopped, and returns the report of a
    finished one. `engine`: where Daft runs the work; the result is the same. `processes`: how many
    do it; None: one for each core; 1: this one. Raises ConfigError for settings, files and folders
    that cannot be used, before work begins."""
    out = config.folder
    _require_own(out)
    _require_own_store(config)
    out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        if found := _finished(config, out):
            return found
        for step in config.steps:
            step.prepare()
        state = out / STATE
        state.mkdir(exist_ok=True)
        plan = Plan.restore(config, state)
        if plan is None:
            plan = Plan.make(config, state)
            plan.save()
        _remove_partial(out)
        if processes is None:
            processes = os.cpu_count() or 1
        return _run(plan, Workers(engine, processes), progress or (lambda *_: None))


def dry_run(config: CleanConfig, rows: int = 1000) -> dict[str, Any]:
    """The report of a sample of about so many rows of each source, from several places. Nothing is
    kept."""
    for step in config.steps:
        step.prepare()
    with tempfile.TemporaryDirectory(prefix="skillweave-clean-") as folder:
        state = Path(folder) / STATE
        state.mkdir()
        config = config.model_copy(update={"out": folder, "work": None})
        whole = Plan.make(config, state)
        units, most = [], 1
        for name in config.sources:
            own = [unit for unit in whole.units if unit[0] == name]
            count = min(len(own), SAMPLED_UNITS)
            most = max(most, count)
            units += [own[i * len(own) // count] for i in range(count)]
        plan = replace(whole, units=units, limit=-(-rows // most))
        return _run(plan, Workers(processes=1), lambda *_: None)


def _require_own(out: Path) -> None:
    """Raise ConfigError for a folder with other things in it."""
    if out.is_file():
        raise ConfigError(f"{out}: is a file; give a folder as `out`")
    known = {STATE, INPUT, LOCK_FILE, FOLDER}
    if out.is_dir() and not (out / STATE).is_dir():
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in known)
        if others:
            raise ConfigError(f"{out}: already holds {others[0]}; give an empty folder as `out`")


def _require_own_store(config: CleanConfig) -> None:
    """Raise ConfigError for a folder of an object store with other things in it."""
    if not config.remote or (config.folder / STATE).is_dir():
        return
    system, root = open_store(config.out)
    if system.isdir(root) and (found := system.ls(root, detail=False)):
        raise ConfigError(
            f"{config.out}: already holds {found[0].rpartition('/')[2]}, which was not begun in"
            f" {config.folder}; give an empty folder as `out`, or the `work` of that run"
        )


def _finished(config: CleanConfig, out: Path) -> dict[str, Any]:
    """The report of a corpus that is finished; empty for others. Raises ConfigError for one with
    other settings."""
    if config.remote and not (out / STATE / UPLOADED_FILE).is_file():
        return {}
    found = read_json(out / report.JSON_FILE)
    if found:
        Plan.restore(config, out / STATE)
    return found


def _remove_partial(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in folder.rglob(f".*{PARTIAL}"):
        remove(path)


def _run(plan: Plan, workers: Workers, progress: Progress) -> dict[str, Any]:
    begun = time.perf_counter()
    for stage in plan.stages:
        _run_stage(plan, stage, workers, progress)
    last = len(plan.stages) - 1
    count = count_shards(plan)
    missing = [i for i in range(count) if not is_written(plan, i)]
    pieces = [("shard", last, shard) for shard in missing]
    workers.run(plan, pieces, lambda done: progress("shards", count - len(missing) + done, count))
    files = [shard_file(plan, shard) for shard in range(count)]
    out = plan.folder.parent
    _write_dropped(plan, out / DROPPED_FILE)
    names = [f"{FOLDER}/{file.name}" for file in files]
    known = {k: v for file in files for k, v in read_json(receipt(file)).items()}
    add_checksums(out, [*names, DROPPED_FILE], known)
    found = report.build(plan, [file.name for file in files], time.perf_counter() - begun)
    report.write(found, out)
    if plan.config.remote:
        for name in (DROPPED_FILE, CHECKSUMS_FILE, report.HTML_FILE, report.JSON_FILE):
            upload(plan.config, name)
        write_json(plan.folder / UPLOADED_FILE, {"out": plan.config.out})
    _remove_rows(plan, last)
    return found


def _run_stage(plan: Plan, stage: Stage, workers: Workers, progress: Progress) -> None:
    total = len(plan.units)
    steps = plan.steps_of(stage)
    what = steps[0].title if len(steps) == 1 else f"stage {stage.number + 1}: {len(steps)} steps"
    missing = plan.missing_units(stage.number)
    if missing:
        plan.unit_folder(stage.number, 0).parent.mkdir(parents=True, exist_ok=True)
    done = total - len(missing)
    progress(what, done, total)
    pieces = [("unit", stage.number, unit) for unit in missing]
    workers.run(plan, pieces, lambda count: progress(what, done + count, total))
    plan.unit_starts(stage.number)  # before workers ask for it at the same time
    if stage.number:
        _remove_rows(plan, stage.number - 1)
    if stage.collecting is not None:
        progress(plan.config.steps[stage.collecting].title, 0, 1)
        decide(plan, stage)
        progress(plan.config.steps[stage.collecting].title, 1, 1)


def decide(plan: Plan, stage: Stage) -> None:
    """Let the step that must see all rows decide, unless it has."""
    assert stage.collecting is not None
    folder = plan.decisions_folder(stage.collecting)
    if folder.exists():
        return
    step = plan.corpus_step(stage.collecting)
    places = [
        (unit, block, count)
        for unit in range(len(plan.units))
        for block, count in enumerate(plan.stats(stage.number, unit)["blocks"])
    ]
    stored = [
        plan.unit_folder(stage.number, unit) / f"block-{block}.npy" for unit, block, _ in places
    ]
    begun = time.perf_counter()
    with replacing(folder) as partial:
        tables = partial / "tables"
        tables.mkdir(parents=True)
        blocks = Blocks(stored, [count for *_, count in places])
        names = [f"{unit:06}-{block}.npy" for unit, block, _ in places]
        _save_records(partial, names, step.decide(blocks, tables))
        summary = dict(step.summary(_load_records(partial, names)))
        summary["seconds"] = time.perf_counter() - begun
        write_json(partial / "summary.json", summary)
        remove(tables)
    for file in stored:
        file.unlink()


def _save_records(folder: Path, names: Sequence[str], records: Any) -> None:
    import numpy as np

    for name, block in zip(names, records, strict=True):
        np.save(folder / name, block)


def _load_records(folder: Path, names: Sequence[str]) -> Iterator[NDArray[np.void]]:
    import numpy as np

    for name in names:
        yield np.load(folder / name)


def _remove_rows(plan: Plan, stage: int) -> None:
    """Remove the rows of a stage, which the next one has read."""
    for unit in range(len(plan.units)):
        (plan.unit_folder(stage, unit) / ROWS_FILE).unlink(missing_ok=True)


def _write_dropped(plan: Plan, file: Path) -> None:
    """One table of all dropped rows."""
    with replacing(file) as partial, pq.ParquetWriter(partial, DROPPED_SCHEMA) as writer:
        for stage in range(len(plan.stages)):
            for unit in range(len(plan.units)):
                table = pq.ParquetFile(plan.unit_folder(stage, unit) / DROPPED_FILE)
                for group in range(table.num_row_groups):
                    writer.write_table(table.read_row_group(group))


@dataclass(frozen=True)
class Explanation:
    """What a step did to a row. `outcome`: unchanged, changed, dropped, split or undecided.
    `changes`: field → its value before and after."""

    step: str
    outcome: str
    detail: str = ""
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def explain(config: CleanConfig, row_id: str) -> list[Explanation]:
    """What each step does to one row, by its `id`. What steps decided that see all rows is read
    from the folder of the corpus. Raises ConfigError for a row that is not there."""
    state = config.folder / STATE
    plan = Plan.restore(config, state) if state.is_dir() else None
    plan = plan or Plan.make(config, state)
    for step in config.steps:
        step.prepare()
    unit, row, told = _find_row(plan, row_id)
    if row is None:
        return told
    known = {**config.input_fields(), **{k: v for s in config.steps for k, v in s.writes.items()}}
    for place, step in enumerate(config.steps):
        result: Result
        if isinstance(step, CorpusStep):
            numbered = _find_record(plan, place, unit, row)
            if numbered is None:
                told.append(
                    Explanation(step.title, "undecided", "it sees all rows; run the command first")
                )
                continue
            result = step.judge(row, *numbered)
        else:
            try:
                (result,) = step.run([row])
            except Exception as error:
                raise failure(step, [row], error) from error
        made = merge(step, row, result, known)
        several = isinstance(result, Sequence) and not isinstance(result, Drop)
        if several:
            ids = [f"{row['id']}#{number}" for number in range(len(made))]
            chosen = next((i for i, one in enumerate(ids) if _leads_to(one, row_id)), None)
            if chosen is None:
                told.append(Explanation(step.title, "split", f"into {', '.join(ids)}"))
                return told
            one = made[chosen]
        else:
            (one,) = made
        if isinstance(one, Drop):
            reason = f"{one.reason} ({one.detail})" if one.detail else one.reason
            told.append(Explanation(step.title, "dropped", _name_first(plan, place, reason, one)))
            return told
        changes = {
            name: (row.get(name), value) for name, value in one.items() if value != row.get(name)
        }
        told.append(Explanation(step.title, "changed" if changes else "unchanged", "", changes))
        row = one
    return told


def _leads_to(row_id: str, wanted: str) -> bool:
    return wanted == row_id or wanted.startswith(row_id + "#")


def _find_row(plan: Plan, row_id: str) -> tuple[int, Row | None, list[Explanation]]:
    base = row_id.partition("#")[0]
    for unit, (name, parts) in enumerate(plan.units):
        if not any(base.startswith(f"{name}:{part.file.name}:") for part in parts):
            continue
        for row in source_rows(plan, unit):
            found, unread = row if isinstance(row, tuple) else (row, None)
            if found["id"] != base:
                continue
            if unread is not None:
                reason = f"{unread.reason} ({unread.detail})" if unread.detail else unread.reason
                return unit, None, [Explanation(READ, "dropped", reason)]
            return unit, found, [Explanation(READ, "unchanged", found["file"])]
    raise ConfigError(
        f"no row {row_id!r}; an id is SOURCE:FILE:LOCATION, as in the column `id` of the shards and"
        f" of {DROPPED_FILE}; sources: {', '.join(plan.config.sources)}"
    )


def _find_record(plan: Plan, place: int, unit: int, row: Row) -> tuple[int, Any] | None:
    """The number of a row among those that a step saw, and what it noted; None before it has."""
    stage = next(stage.number for stage in plan.stages if stage.collecting == place)
    file = plan.unit_folder(stage, unit) / IDS_FILE
    if not plan.decisions_folder(place).is_dir() or not file.is_file():
        return None
    ids = pq.read_table(file)["id"].to_pylist()
    if row["id"] not in ids:
        return None
    index = ids.index(row["id"])
    record = next(islice(read_records(plan, place, unit), index, None))
    return plan.unit_starts(stage)[unit] + index, record


def _name_first(plan: Plan, place: int, reason: str, drop: Drop) -> str:
    """A reason with the id of the row that it numbers."""
    prefix = "of row "
    if not drop.detail.startswith(prefix) or not isinstance(plan.config.steps[place], CorpusStep):
        return reason
    return f"{drop.reason} of {id_of(plan, place, int(drop.detail.removeprefix(prefix)))}"


def id_of(plan: Plan, place: int, number: int) -> str:
    """The id of a row by its number among those that a step saw."""
    stage = next(stage.number for stage in plan.stages if stage.collecting == place)
    starts = plan.unit_starts(stage)
    unit = next(u for u, end in enumerate(starts[1:]) if number < end)
    ids = pq.read_table(plan.unit_folder(stage, unit) / IDS_FILE)["id"]
    return ids[number - starts[unit]].as_py()


class Pipeline:
    """Steps that are done to the rows of a Daft frame.

    A row has the columns of the frame as fields; steps read `text`, `title`, `html` and `image`.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)

    def apply(self, frame: DataFrame, keep_dropped: bool = False) -> DataFrame:
        """The frame after the steps, when Daft computes it. `keep_dropped`: keep dropped rows, with
        the step and the reason in a column `dropped`. Raises ConfigError for a step that must see
        all rows; `run` does those."""
        import daft

        if seeing_all := [s.title for s in self.steps if isinstance(s, CorpusStep)]:
            raise ConfigError(f"{seeing_all[0]} must see all rows; use Pipeline.run(frame, out)")
        for step in self.steps:
            step.prepare()
        names = frame.column_names
        fields = {name: frame.schema()[name].dtype for name in names}
        for step in self.steps:
            fields |= {name: _daft_type(kind) for name, kind in step.writes.items()}
        fields["dropped"] = daft.DataType.string()
        steps, known = self.steps, tuple(fields)

        @daft.func.batch(return_dtype=daft.DataType.list(daft.DataType.struct(fields)))
        def change(*columns: Any) -> list[list[Row]]:
            values = zip(*(column.to_pylist() for column in columns), strict=True)
            rows = [dict(zip(names, cells, strict=True)) for cells in values]
            return [_pass(steps, row, known) for row in rows]

        result: Any = change(*(frame[name] for name in names))  # an expression of columns
        changed = frame.select(result.alias("rows"))
        changed = changed.explode("rows")
        changed = changed.select(*(changed["rows"].get(name).alias(name) for name in fields))
        if keep_dropped:
            return changed
        return changed.where(changed["dropped"].is_null()).exclude("dropped")

    def run(
        self,
        frame: DataFrame,
        out: str | Path,
        *,
        processes: int | None = None,
        shards: ShardsConfig | None = None,
        progress: Progress | None = None,
    ) -> DataFrame:
        """Do all steps to a frame, also those that must see all rows, and write shards and a report
        into a folder, as `clean` does. Returns the clean rows as a frame.

        The rows are stored in `out/input` first, so that an interrupted call continues when it is
        made again. Columns other than url, title, text and image become texts.
        """
        import daft

        folder = Path(out)
        _require_own(folder)
        stored = folder / INPUT
        if not stored.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(stored) as partial:
                partial.mkdir()
                for number, batch in enumerate(frame.to_arrow_iter()):
                    import pyarrow as pa

                    pq.write_table(pa.Table.from_batches([batch]), partial / f"{number:06}.parquet")
        keep = tuple(name for name in frame.column_names if name not in Parquet.gives)
        config = CleanConfig(
            out=str(folder),
            sources={"frame": Parquet(path=f"{stored}/*.parquet", keep=keep)},
            steps=self.steps,
            shards=shards or ShardsConfig(),
        )
        clean(config, processes=processes, progress=progress)
        return daft.read_parquet(f"{folder}/{FOLDER}/*.parquet")


def _pass(steps: Sequence[Step], row: Row, known: Sequence[str]) -> list[Row]:
    """The rows that become of a row, dropped ones with `dropped`."""
    named = "id" in row
    rows: list[Row] = [{"id": "", **row}]
    gone: list[Row] = []
    for step in steps:
        left: list[Row] = []
        for one in rows:
            (result,) = step.run([one])
            for made in merge(step, one, result, known):
                if isinstance(made, Drop):
                    gone.append({**one, "dropped": f"{step.title}: {made.reason}"})
                else:
                    left.append(made)
        rows = left
    found = [*rows, *gone]
    return found if named else [{k: v for k, v in one.items() if k != "id"} for one in found]


def _daft_type(kind: str) -> Any:
    import daft
    import pyarrow as pa

    return daft.DataType.from_arrow_type(pa.type_for_alias(kind))

"""An index on disk that grows: a table of LanceDB, with conditions in SQL and a search by words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skillweave.config import ConfigError
from skillweave.config.errors import reading
from skillweave.inference.predictor import Vectors
from skillweave.retrieval.filters import Filter, unknown_column
from skillweave.retrieval.vectors import DEPTH, Entry, Hit, VectorIndex
from skillweave.retrieval.words import fused, segmented
from skillweave.storage import write_json

FILE = "skillweave.json"
"""What a folder of tables says of itself: the weights whose vectors it holds."""
APPROXIMATE = 50_000
"""From so many vectors on, an approximate index chooses the candidates."""
PROBED = 0.03
"""Share of the partitions of the approximate index that is searched, at least `LEAST_PROBED`."""
LEAST_PROBED = 20
OWN = ("key", "caption", "split", "row", "path", "content", "mark", "words", "vector")
PREFIX = "meta_"
"""Begins the names of columns of the data, so that they may be called as ours."""
AT_ONCE = 500
"""Keys of one condition."""


class LanceIndex(VectorIndex):
    """The items of one modality, as one task encodes them, in a table of LanceDB.

    `folder`: of the database, made if absent. `name`: of the table, made by the first `add`.
    `weights`: the fingerprint of the model. Items are on disk when `add` returns. Raises
    ConfigError where LanceDB is not installed, for a folder that holds something else, and for the
    vectors of another model.
    """

    def __init__(self, folder: str | Path, name: str, weights: str) -> None:
        self.folder, self.name = Path(folder), re.sub(r"[^\w.-]", "_", name)
        told = read_description(self.folder)
        if told is None:
            if self.folder.exists() and any(self.folder.iterdir()):
                raise ConfigError(f"{folder}: holds other files; give another folder for the index")
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / FILE, {"weights": weights})
        elif told["weights"] != weights:
            raise ConfigError(
                f"{folder}: holds vectors of other weights; give the model that it was made with,"
                " or another folder"
            )
        self.database = _connect(self.folder)
        there = self.name in self.database.list_tables().tables
        self.table: Any = self.database.open_table(self.name) if there else None

    def __len__(self) -> int:
        return 0 if self.table is None else self.table.count_rows()

    @property
    def entries(self) -> Sequence[Entry]:
        """See `VectorIndex`."""
        names = [] if self.table is None else [n for n in self._names if n != "vector"]
        return [self._entry(row) for row in self._rows(names)]

    @property
    def vectors(self) -> Vectors:
        """See `VectorIndex`."""
        found = [row["vector"] for row in self._rows(["vector"])]
        return np.array(found, np.float32).reshape(len(found), -1 if found else 0)

    def marks(self) -> dict[str, str]:
        """Key → mark of every item."""
        return {row["key"]: row["mark"] for row in self._rows(["key", "mark"])}

    def entry(self, key: str) -> Entry | None:
        """See `VectorIndex`."""
        if self.table is None:
            return None
        rows = self.table.search().where(f"key = {_quoted(key)}").limit(1).to_list()
        return self._entry(rows[0]) if rows else None

    def add(self, entries: Sequence[Entry], vectors: Vectors) -> None:
        """See `VectorIndex`. Raises ConfigError for a cell of another type than its column's."""
        if not entries:
            return
        numbers = list({entry.key: number for number, entry in enumerate(entries)}.values())
        kept = [entries[number] for number in numbers]
        if self.table is None:
            schema = _schema(np.shape(vectors)[1])
            self.table = self.database.create_table(self.name, schema=schema)
        self._make_columns(kept)
        rows = _as_table(kept, np.asarray(vectors, np.float32)[numbers], self.table.schema)
        merge = self.table.merge_insert("key").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(rows)

    def delete(self, keys: Collection[str]) -> int:
        """See `VectorIndex`."""
        before, every = len(self), sorted(keys) if len(self) else []
        for start in range(0, len(every), AT_ONCE):
            some = ", ".join(_quoted(key) for key in every[start : start + AT_ONCE])
            self.table.delete(f"key IN ({some})")
        return before - len(self)

    def optimize(self) -> None:
        """Bring what was added into the indexes of vectors and words, and make files few. Searches
        are right without it, but slower."""
        from lancedb.index import FTS, IvfFlat

        if not (count := len(self)):
            return
        indexed = {one.name for one in self.table.list_indices()}
        if count >= APPROXIMATE and "vector_idx" not in indexed:
            # As many partitions as vectors in each. Given as their size, since `optimize` joins
            # partitions that are smaller than it, and knows of no number that was asked for.
            ivf = IvfFlat(distance_type="cosine", target_partition_size=round(math.sqrt(count)))
            self.table.create_index("vector", config=ivf)
        if "words_idx" not in indexed:
            exact = FTS(
                base_tokenizer="whitespace",
                lower_case=False,
                stem=False,
                remove_stop_words=False,
                ascii_folding=False,
            )
            self.table.create_index("words", config=exact)
        self.table.optimize()

    def search(
        self, query_D: Vectors, k: int, where: Sequence[Filter] = (), words: str = ""
    ) -> list[Hit]:
        """See `VectorIndex`. An approximate index looks into some of its partitions alone; their
        vectors are whole, so the cosines are exact."""
        if self.table is None:
            return []
        condition, query = self._sql(where), np.asarray(query_D, np.float32)
        search = self.table.search(query, vector_column_name="vector").distance_type("cosine")
        probes = max(LEAST_PROBED, math.ceil(PROBED * math.sqrt(max(len(self), 1))))
        rows = self._found(search.nprobes(probes), condition, k * DEPTH if words else k)
        by_key = {row["key"]: row for row in rows}
        scores = {row["key"]: 1 - row["_distance"] for row in rows}
        order = list(scores)
        if words and (asked := segmented(words)):
            worded = self._by_words(asked, condition, k * DEPTH)
            for row in worded:
                by_key[row["key"]] = row
                scores.setdefault(row["key"], float(np.dot(row["vector"], query)))
            order = fused([order, [row["key"] for row in worded]])
        return [Hit(scores[key], self._entry(by_key[key])) for key in order[:k]]

    def _by_words(self, asked: str, condition: str, k: int) -> list[dict[str, Any]]:
        if "words_idx" not in {one.name for one in self.table.list_indices()}:
            self.optimize()
        search = self.table.search(asked, query_type="fts", fts_columns="words")
        return self._found(search, condition, k, "vector")

    def _found(
        self, search: Any, condition: str, k: int, vector: str = "_distance"
    ) -> list[dict[str, Any]]:
        """The rows that a search finds, the best first, with one more column. Vectors are left out
        unless they are asked for: as Python lists they cost more than the search."""
        columns = [name for name in self._names if name not in ("vector", "words")]
        if condition:
            search = search.where(condition, prefilter=True)
        return search.select([*columns, vector]).limit(k).to_list()

    @property
    def _names(self) -> list[str]:
        return list(self.table.schema.names)

    def _rows(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        if self.table is None:
            return
        for batch in self.table.search().select(list(names)).to_batches():
            yield from batch.to_pylist()

    def _entry(self, row: Mapping[str, Any]) -> Entry:
        metadata = {
            name.removeprefix(PREFIX): value
            for name, value in row.items()
            if name.startswith(PREFIX) and value is not None
        }
        own = {name: row[name] for name in OWN if name not in ("words", "vector")}
        return Entry(**own, metadata=metadata)

    def _make_columns(self, entries: Sequence[Entry]) -> None:
        """Add columns for what the table does not know yet."""
        types = {bool: "boolean", int: "bigint", float: "double", str: "string"}
        new: dict[str, str] = {}
        for entry in entries:
            for name, value in entry.metadata.items():
                if PREFIX + name not in self._names and value is not None:
                    found = types[type(value)]
                    known = new.setdefault(name, found)
                    if {known, found} == {"bigint", "double"}:
                        new[name] = "double"
                    elif known != found:
                        new[name] = "string"
        if new:
            self.table.add_columns({PREFIX + n: f"CAST(NULL AS {t})" for n, t in new.items()})

    def _sql(self, where: Sequence[Filter]) -> str:
        import pyarrow as pa

        columns = {n.removeprefix(PREFIX): n for n in self._names if n.startswith(PREFIX)}
        columns = {name: name for name in ("key", "caption", "split")} | columns
        parts = []
        for one in where:
            if one.column not in columns:
                raise unknown_column(one.column, columns)
            kind = self.table.schema.field(columns[one.column]).type
            tests = {bool: pa.types.is_boolean, str: pa.types.is_string, int: pa.types.is_integer}
            read = next((python for python, holds in tests.items() if holds(kind)), float)
            parts.append(f"({one.sql(columns[one.column], read)})")
        return " AND ".join(parts)


def read_description(folder: Path) -> dict[str, Any] | None:
    """What a folder of tables says of itself; None for another folder. Raises ConfigError for a
    damaged file."""
    file = folder / FILE
    if not file.is_file():
        return None
    with reading(file, "the description of an index"):
        told = json.loads(file.read_bytes())
        return {"weights": str(told["weights"])}


def is_index(folder: Path) -> bool:
    """Whether a folder holds tables of vectors."""
    return (folder / FILE).is_file()


def indexed(folder: Path) -> list[tuple[str, str]] | None:
    """The task and modality of each table in a folder; None for another folder. Raises ConfigError
    where LanceDB is not installed."""
    if not is_index(folder):
        return None
    names = _connect(folder).list_tables().tables
    return [(task, modality) for task, _, modality in (name.rpartition(".") for name in names)]


def _connect(folder: Path) -> Any:
    try:
        import lancedb
    except ImportError:
        raise ConfigError(
            "an index on disk needs LanceDB; install it with: pip install 'skillweave[search]'"
        ) from None
    return lancedb.connect(folder)


def _schema(width: int) -> Any:
    import pyarrow as pa

    own = [(column, pa.int64() if column == "row" else pa.string()) for column in OWN[:-1]]
    return pa.schema([*own, ("vector", pa.list_(pa.float32(), width))])


def _as_table(entries: Sequence[Entry], vectors: Vectors, schema: Any) -> Any:
    import pyarrow as pa

    columns: dict[str, Any] = {
        "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
        "words": pa.array([segmented(entry.caption) for entry in entries]),
    }
    for field in schema:
        if field.name.startswith(PREFIX):
            cells = [entry.metadata.get(field.name.removeprefix(PREFIX)) for entry in entries]
            columns[field.name] = _column(field, cells)
        elif field.name not in columns:
            cells = [getattr(entry, field.name) for entry in entries]
            columns[field.name] = pa.array(cells, field.type)
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _column(field: Any, cells: Sequence[Any]) -> Any:
    import pyarrow as pa

    if pa.types.is_string(field.type):
        cells = [cell if cell is None else str(cell) for cell in cells]
    try:
        return pa.array(cells, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        name = field.name.removeprefix(PREFIX)
        raise ConfigError(
            f"column {name!r} holds {field.type} in the index, and here something else ({error})"
        ) from None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

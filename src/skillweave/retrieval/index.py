"""An index of a model's vectors of items, and search in it by raw inputs."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.numpy import save_file

from skillweave.batch import SkippedSample
from skillweave.config import ConfigError
from skillweave.config.data import LimitsConfig, Split
from skillweave.config.errors import reading
from skillweave.data.feature_store import FeatureStore
from skillweave.data.processors import BadInput
from skillweave.data.processors.media import contents
from skillweave.data.sources import Source
from skillweave.data.sources.pinning import state
from skillweave.data.values import first_text
from skillweave.inference.inputs import check_several, read_inputs
from skillweave.inference.predictor import Predictor, Vectors, as_predictor, group_size
from skillweave.model.model import Model
from skillweave.retrieval.filters import Filter, parse_filters
from skillweave.retrieval.hits import Hits
from skillweave.retrieval.vectors import Entry, ExactIndex, Hit, VectorIndex
from skillweave.storage import add_checksums, replacing, verify, write_text
from skillweave.tasks.dataset import open_fields
from skillweave.tasks.predictions import Progress
from skillweave.tasks.resolve import ResolvedRecipe
from skillweave.tasks.retrieval import Retrieval
from skillweave.weights.files import fingerprint as weights_fingerprint

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FOLDER = "index"
"""Where a run keeps its indexes."""
CACHE_BYTES = 2**36
"""Largest file of vectors that are kept beside an index."""
STORED_AT_ONCE = 512
"""Items that are added to an index on disk in one write."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Items:
    """What is indexed: rows under the task's field names, by split ("" for data without splits),
    and a fingerprint of the data. `shown`: what else is known of each row, in data without
    splits."""

    rows: Mapping[str, Sequence[Row] | Source]
    fingerprint: str
    shown: Sequence[Row] = ()

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def __iter__(self) -> Iterator[tuple[str, int, Row]]:
        for split, rows in self.rows.items():
            for number in range(len(rows)):
                yield split, number, rows[number]

    def row(self, entry: Entry) -> Row | None:
        """The row of an entry; None for an entry of other data."""
        rows = self.rows.get(entry.split, ())
        row = rows[entry.row] if entry.row < len(rows) else None
        return row if row is not None and row["key"] == entry.key else None

    def entry(self, split: str, number: int, row: Row, fields: Fields, mark: str) -> Entry:
        """The entry of a row: its caption, its file, and its columns of plain values."""
        value, shown = row[fields.value], self.shown[number] if self.shown else {}
        path = value.get("path") if isinstance(value, Mapping) else None
        metadata = {
            name: cell
            for name, cell in shown.items()
            if isinstance(cell, bool | int | float | str) and name != "key"
        }
        caption = first_text(row.get(fields.caption, ""))
        content = first_text(value) if fields.value == "code" and not path else ""
        place = os.path.abspath(path) if path else ""
        return Entry(row["key"], caption, split, number, place, content, metadata, mark)


@dataclass(frozen=True)
class Fields:
    """The fields of a row that hold the item and its caption."""

    value: str
    caption: str


@dataclass(frozen=True)
class Index:
    """Items of one modality, as one task encodes them.

    `store`: their vectors and entries. `predictor`: the model that encodes queries. `items`: what
    was indexed, where it is at hand.
    """

    task: str
    modality: str
    store: VectorIndex
    skipped: Sequence[SkippedSample] = ()
    predictor: Predictor | None = None
    items: Items | None = None

    @property
    def vectors(self) -> Vectors:
        """[N, D] unit float32, one per entry."""
        return self.store.vectors

    @property
    def entries(self) -> Sequence[Entry]:
        """Where each vector came from."""
        return self.store.entries

    def __len__(self) -> int:
        return len(self.store)

    @classmethod
    def build(
        cls,
        model: Model | Predictor | str | Path,
        data: str | Path | Sequence[Any],
        modality: str | None = None,
        task: str | None = None,
        progress: Progress | None = None,
        out: str | Path | None = None,
    ) -> Index:
        """An index of a folder of files, a table, a single file, or a list of texts, paths, bytes,
        pictures, arrays or tensors (then `modality` is required, and the keys are the numbers of
        the items).

        `modality`: of the items; by default the first that the model can relate to texts and that
        `data` holds. `task`: whose vectors are used. `out`: keep it in this folder, a database of
        LanceDB, to which the items are added; those under a known key are replaced, and those that
        have not changed are not embedded again. In memory if absent. Raises ConfigError for data
        that cannot be read, a modality that cannot be searched, and an index of another model.
        """
        predictor = as_predictor(model)
        if modality is None:
            if not isinstance(data, str | Path):
                raise ConfigError("say what the list holds: modality='image', 'text', ...")
            found = [one for one in held(predictor, data) if task in (None, one[0])]
            # what texts describe comes before the texts
            task, modality = min(found, key=lambda one: one[1] == "text")
        name = task or task_for(predictor, modality)
        items = own_items(predictor, name, modality, data)
        if out is None:
            return embed(predictor, items, name, modality, progress)
        index = cls.open(predictor, out, modality, name)
        skipped = update(index, items, progress)
        return replace(index, skipped=skipped, items=items)

    @classmethod
    def open(
        cls,
        model: Model | Predictor | str | Path,
        folder: str | Path,
        modality: str,
        task: str | None = None,
    ) -> Index:
        """The index that `build` keeps in a folder, empty if there is none. Raises ConfigError for
        the vectors of another model."""
        from skillweave.retrieval.lance import LanceIndex

        predictor = as_predictor(model)
        name = task or task_for(predictor, modality)
        predictor.single_pass(name, modality)  # says which modalities there are
        store = LanceIndex(folder, f"{name}.{modality}", model_mark(predictor.model))
        return cls(name, modality, store, (), predictor)

    def search(
        self,
        k: int = 5,
        where: Iterable[str | Filter] | Mapping[str, Any] = (),
        words: str | bool = False,
        **media: Any,
    ) -> Hits:
        """The k items most similar to one raw input: `text="一个笑脸"`, `image="cat.png"`, ...

        `where`: only items that meet conditions on their columns, such as `["year>=2020"]` or
        `{"label": "cat"}`. `words`: rank by the words of the captions as well: these, or those of
        the text if True; see `VectorIndex.search`. Raises ConfigError for a modality that the
        index's task does not encode and for an unknown column, BadInput for an input that cannot be
        used.
        """
        if self.predictor is None:
            raise ConfigError("the index has no model to encode queries; build or open it with one")
        if words is True:
            if "text" not in media:
                raise ConfigError("words: there is no text; give the words themselves")
            words = str(media["text"])
        values = {name: [value] for name, value in media.items()}
        query_D = self.predictor.encode(self.task, None, None, **values)[0]
        found = self.store.search(query_D, k, parse_filters(where), words or "")
        return Hits(found, self.modality, self.value)

    def add(
        self, data: str | Path | Sequence[Any], progress: Progress | None = None
    ) -> list[SkippedSample]:
        """Add the items of a source; those under a known key are replaced, and those that have not
        changed are not embedded again. Items of a list get the numbers after those that are there.
        Returns what could not be read."""
        if self.predictor is None:
            raise ConfigError("the index has no model; build or open it with one")
        first = 0
        if not isinstance(data, str | Path):
            numbers = [int(entry.key) for entry in self.entries if entry.key.isdecimal()]
            first = max(numbers, default=-1) + 1
        items = own_items(self.predictor, self.task, self.modality, data, first)
        return update(self, items, progress)

    def delete(self, *keys: str) -> int:
        """Remove the items under some keys. Returns how many there were."""
        return self.store.delete(keys)

    def value(self, entry: Entry) -> Any:
        """What was indexed: a text, or a file as `{"bytes", "path"}`. Raises ConfigError where it
        is not at hand."""
        if entry.path and Path(entry.path).is_file():
            return {"bytes": None, "path": entry.path}
        row = None if self.items is None else self.items.row(entry)
        if row is not None:
            return (
                row["second"] if self.modality == "text" and "second" in row else row[self.modality]
            )
        if self.modality == "text":
            return entry.caption
        if entry.content:
            return entry.content
        raise ConfigError(f"{entry.key}: the index holds its vector, and its file is not at hand")

    def hits(self, query_D: Vectors, k: int) -> list[Hit]:
        """The k most similar items, best first; equal scores in the order of the entries."""
        return self.store.search(query_D, k)

    def find(self, query_D: Vectors, k: int) -> list[dict[str, Any]]:
        """As `hits`, as plain data."""
        return [hit.to_json() for hit in self.hits(query_D, k)]


def searchable(predictor: Predictor) -> dict[str, dict[str, str]]:
    """Retrieval task → its modalities, each with the field that holds it; pretraining tasks
    last."""
    found = {}
    tasks = predictor.tasks
    for name in sorted(tasks, key=lambda n: tasks[n].entry.pretraining):
        entry = tasks[name].entry
        if isinstance(entry, Retrieval) and entry.searchable:
            found[name] = entry.searchable
    return found


def task_for(predictor: Predictor, modality: str, asked: str = "text") -> str:
    """The retrieval task that relates `asked` inputs to items of `modality`. Raises ConfigError
    when there is none."""
    tasks = searchable(predictor)
    for name, fields in tasks.items():
        if {modality, asked} <= fields.keys():
            return name
    known = ", ".join(f"{' and '.join(m)} ({name})" for name, m in tasks.items()) or "none"
    raise ConfigError(f"no task of this model relates {asked} to {modality}; it can search {known}")


def held(predictor: Predictor, data: str | Path) -> list[tuple[str, str]]:
    """What a user's data hold for the model to search: retrieval tasks, each with a modality.
    Raises ConfigError where that is nothing."""
    found, reasons = [], []
    for task, fields in searchable(predictor).items():
        for modality in fields:
            try:
                own_items(predictor, task, modality, data)
                found.append((task, modality))
            except ConfigError as error:
                reasons.append(str(error))
    if not found:
        why = "; ".join(dict.fromkeys(reasons)) or "it has no retrieval task"
        raise ConfigError(f"{data}: holds nothing that this model can search ({why})")
    return found


def own_items(
    predictor: Predictor,
    task: str,
    modality: str,
    data: str | Path | Sequence[Any],
    first: int = 0,
) -> Items:
    """A user's own items. `first`: the number of the first item of a list. Raises ConfigError for
    data that cannot be read."""
    field = _field(predictor, task, modality)
    if not isinstance(data, str | Path):
        check_several(data, "the items of an index", modality)
        values = [_as_file(value, modality) for value in data]
        return Items({"": [{"key": str(i), field: one} for i, one in enumerate(values, first)]}, "")
    found = read_inputs(data, [field], predictor.task(task).columns, optional=["text"])
    return Items({"": found.rows}, state(found.rows), found.shown)


def _as_file(value: Any, modality: str) -> Any:
    """A path to a picture, clip or recording as sources give it; other values as they are."""
    named = isinstance(value, Path) or (isinstance(value, str) and modality not in ("text", "code"))
    return {"bytes": None, "path": str(value)} if named else value


def run_items(recipe: ResolvedRecipe, task: str, splits: Sequence[Split] = SPLITS) -> Items:
    """A run's own data of the splits that it has. Raises the first split's ConfigError when it has
    none."""
    config, rows, errors = recipe.recipe.tasks[task], {}, []
    for split in splits:
        try:
            rows[split] = open_fields(recipe.task(task), config, split)
        except ConfigError as error:
            errors.append(error)
    if not rows:
        raise errors[0]
    sizes = {split: len(source) for split, source in rows.items()}
    sources = {source.table.path: source for source in rows.values()}
    states = [state(source) for source in sources.values()]
    told = json.dumps([config.data.model_dump(mode="json"), sizes, states])
    return Items(rows, hashlib.sha256(told.encode()).hexdigest())


def build_index(
    predictor: Predictor,
    items: Items,
    folder: Path,
    task: str,
    modality: str,
    progress: Progress | None = None,
) -> Index:
    """The index of some items, from `folder` if weights and data are the same, else built and
    stored there. Vectors are stored as they are made, so that a build that was interrupted goes on,
    and items whose content has not changed are not embedded again."""
    mark = fingerprint(predictor.model, items)
    file = folder / f"{task}.{modality}.safetensors"
    stored = _read(file, mark, predictor, items, task, modality)
    if stored is None:
        cache = FeatureStore(folder, CACHE_BYTES)
        stored = embed(predictor, items, task, modality, progress, cache)
        _write(stored, file, mark)
    return stored


def embed(
    predictor: Predictor,
    items: Items,
    task: str,
    modality: str,
    progress: Progress | None = None,
    cache: FeatureStore | None = None,
) -> Index:
    """Embed all items, into memory. `cache`: vectors of contents that are known, to which the new
    ones are added. Raises ConfigError when none can be read."""
    empty = np.zeros((0, predictor.model.config.width), np.float32)
    index = Index(task, modality, ExactIndex(empty, []), (), predictor, items)
    entries: list[Entry] = []
    vectors: list[Vectors] = []
    skipped = []
    for found in _embedded(index, items, progress, cache):
        if isinstance(found, SkippedSample):
            skipped.append(found)
        else:
            entries.append(found[0])
            vectors.append(found[1])
    if not vectors:
        reason = f"{skipped[0].key}: {skipped[0].reason}" if skipped else "there are none"
        raise ConfigError(
            f"task {task!r}: none of its {len(items)} samples could be read ({reason})"
        )
    return replace(index, store=ExactIndex(np.stack(vectors), entries), skipped=skipped)


def update(index: Index, items: Items, progress: Progress | None = None) -> list[SkippedSample]:
    """Add items to an index, group by group, so that what is embedded stays when it is interrupted.
    Those with the key and content of one that is there are left as they are. Returns what could not
    be read."""
    marks = index.store.marks()
    skipped: list[SkippedSample] = []
    entries: list[Entry] = []
    vectors: list[Vectors] = []

    def store() -> None:
        if entries:
            index.store.add(entries, np.stack(vectors))
            entries.clear()
            vectors.clear()

    try:
        for found in _embedded(index, items, progress, known=marks):
            if isinstance(found, SkippedSample):
                skipped.append(found)
                continue
            entries.append(found[0])
            vectors.append(found[1])
            if len(entries) >= STORED_AT_ONCE:
                store()
    finally:
        store()
    index.store.optimize()
    return skipped


def _embedded(
    index: Index,
    items: Items,
    progress: Progress | None = None,
    cache: FeatureStore | None = None,
    known: Mapping[str, str] | None = None,
) -> Iterator[tuple[Entry, Vectors] | SkippedSample]:
    """Each item with its vector, or why it cannot be used, but for those whose key and mark are
    `known`."""
    predictor, task, modality = cast(Predictor, index.predictor), index.task, index.modality
    field, total, done = _field(predictor, task, modality), len(items), 0
    fields = Fields(field, field if modality == "text" else "text")
    limits = predictor.model.config.limits
    size = group_size(predictor.single_pass(task, modality))
    whose = "" if cache is None else f"{model_mark(predictor.model)} {task} {modality}"
    rest = iter(items)
    while group := list(islice(rest, size)):
        found: dict[int, tuple[Entry, Vectors] | SkippedSample | None] = {}
        missing: dict[int, tuple[Entry, bytes]] = {}
        for place, (split, number, row) in enumerate(group):
            try:
                content = content_of(row[field], modality, limits)
            except BadInput as error:
                found[place] = SkippedSample(task, row["key"], str(error))
                continue
            mark = hashlib.blake2b(content, digest_size=24).hexdigest()
            entry = items.entry(split, number, row, fields, mark)
            key = hashlib.blake2b(f"{whose} {mark}".encode(), digest_size=24).digest()
            vector = None if cache is None else cache.get(key)
            if known is not None and known.get(entry.key) == entry.mark:
                found[place] = None
            elif vector is not None:
                found[place] = entry, vector
            else:
                missing[place] = entry, key
        values = [group[place][2][field] for place in missing]
        encoded = predictor.encode_each(task, modality, values) if values else ()
        new = []
        for (place, (entry, key)), vector in zip(missing.items(), encoded, strict=True):
            if isinstance(vector, BadInput):
                found[place] = SkippedSample(task, entry.key, str(vector))
            else:
                found[place] = entry, vector
                new.append((key, vector))
        if cache is not None and new:
            cache.put(new)
        yield from (one for place in range(len(group)) if (one := found[place]) is not None)
        done += len(group)
        if progress:
            progress(f"{task} · {modality}", done, total)


def content_of(value: Any, modality: str, limits: LimitsConfig) -> bytes:
    """All bytes that an item is made of. Raises BadInput for a file that cannot be read."""
    if value is None:
        raise BadInput(f"no {modality}")
    if modality in ("text", "code") and not isinstance(value, Mapping | Path | bytes):
        return first_text(value).encode("utf-8", "surrogatepass")
    return contents(value, limits)


def model_mark(model: Model) -> str:
    """A hash of the weights and the tokenizers."""
    digest = hashlib.sha256(weights_fingerprint(model.state_dict()).encode())
    for name, content in sorted(model.assets.items()):
        digest.update(name.encode() + content)
    return digest.hexdigest()


def fingerprint(model: Model, items: Items) -> str:
    """A hash of the weights, the tokenizers and the data."""
    return hashlib.sha256((items.fingerprint + model_mark(model)).encode()).hexdigest()


def _field(predictor: Predictor, task: str, modality: str) -> str:
    predictor.single_pass(task, modality)  # says which modalities there are
    return cast(Retrieval, predictor.task(task).entry).searchable[modality]


def _write(index: Index, file: Path, mark: str) -> None:
    """Vectors and entries, each with the fingerprint, so that a write cut short is noticed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {"fingerprint": mark}
    rows: dict[str, Iterable[Any]] = {
        "entries": [asdict(e) for e in index.entries],
        "skipped": [asdict(s) for s in index.skipped],
    }
    with replacing(file) as partial:
        save_file({"vectors": index.vectors}, partial, {"fingerprint": mark})
    write_text(file.with_suffix(".json"), json.dumps(about | rows, ensure_ascii=False))
    add_checksums(file.parent, [file.name, file.with_suffix(".json").name])


def _read(
    file: Path, mark: str, predictor: Predictor, items: Items, task: str, modality: str
) -> Index | None:
    """A stored index, None when there is none or its fingerprint is another, and, with a warning,
    when it is damaged."""
    listing = file.with_suffix(".json")
    if not (file.is_file() and listing.is_file()):
        return None
    try:
        verify(file.parent, only=[file.name, listing.name])
        with reading(file, "an index"):
            about = json.loads(listing.read_bytes())
            with safe_open(file, framework="np") as stored:
                if about["fingerprint"] != mark or stored.metadata()["fingerprint"] != mark:
                    return None
                vectors = stored.get_tensor("vectors")
            entries = TypeAdapter(list[Entry]).validate_python(about["entries"])
            skipped = TypeAdapter(list[SkippedSample]).validate_python(about["skipped"])
            if vectors.ndim != 2 or len(vectors) != len(entries):
                raise ValueError(f"{vectors.shape} vectors of {len(entries)} items")
            store = ExactIndex(vectors, entries)
            return Index(task, modality, store, skipped, predictor, items)
    except ConfigError as error:
        warnings.warn(f"{error}; the index is built anew", stacklevel=2)
        return None

"""An exact index in memory: unit vectors of items, and where each came from."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import tee
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.numpy import save_file

from skillweave.batch import SkippedSample
from skillweave.config import ConfigError
from skillweave.config.data import Split
from skillweave.config.errors import reading
from skillweave.data.processors import BadInput
from skillweave.data.sources import Source
from skillweave.data.sources.pinning import state
from skillweave.data.values import first_text
from skillweave.inference.inputs import read_inputs
from skillweave.inference.predictor import Predictor, Vectors, as_predictor
from skillweave.model.model import Model
from skillweave.storage import add_checksums, replacing, verify, write_text
from skillweave.tasks.dataset import open_fields
from skillweave.tasks.predictions import Progress
from skillweave.tasks.resolve import ResolvedRecipe
from skillweave.tasks.retrieval import Retrieval
from skillweave.weights.files import fingerprint as weights_fingerprint

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FOLDER = "index"
"""Where a run keeps its indexes."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """An item of the index: its key, its first caption, and for a run's own data its split. `row`:
    its number in that split, or in the data."""

    key: str
    caption: str
    split: str
    row: int


@dataclass(frozen=True)
class Hit:
    """An answer: cosine similarity and the item."""

    score: float
    entry: Entry

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        entry = self.entry
        row = {"score": self.score, "key": entry.key, "caption": entry.caption}
        return {**row, "split": entry.split} if entry.split else row


@dataclass(frozen=True)
class Items:
    """What is indexed: rows under the task's field names, by split ("" for data without splits),
    and a fingerprint of the data."""

    rows: Mapping[str, Sequence[Row] | Source]
    fingerprint: str

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def __iter__(self) -> Iterator[tuple[str, int, Row]]:
        for split, rows in self.rows.items():
            for number in range(len(rows)):
                yield split, number, rows[number]

    def row(self, entry: Entry) -> Row:
        """The row of an entry."""
        return self.rows[entry.split][entry.row]


@dataclass(frozen=True)
class Index:
    """`vectors`: [N, D] unit float32, one per entry, of one modality as one task encodes it.

    `predictor`: the model that encodes queries. `items`: what was indexed, where it is at hand.
    """

    task: str
    modality: str
    vectors: NDArray[np.float32]
    entries: Sequence[Entry]
    skipped: Sequence[SkippedSample] = ()
    predictor: Predictor | None = None
    items: Items | None = None

    @classmethod
    def build(
        cls,
        model: Model | Predictor | str | Path,
        data: str | Path,
        modality: str | None = None,
        task: str | None = None,
        progress: Progress | None = None,
    ) -> Index:
        """An index of a folder of files, a table or a single file, in memory.

        `modality`: of the items; by default the first that the model can relate to texts and that
        `data` holds. `task`: whose vectors are used. Raises ConfigError for data that cannot be
        read, or a modality that cannot be searched.
        """
        predictor = as_predictor(model)
        if modality is None:
            found = [one for one in held(predictor, data) if task in (None, one[0])]
            # what texts describe comes before the texts
            task, modality = min(found, key=lambda one: one[1] == "text")
        name = task or task_for(predictor, modality)
        items = own_items(predictor, name, modality, data)
        return embed(predictor, items, name, modality, progress)

    def search(self, k: int = 5, **media: Any) -> list[Hit]:
        """The k items most similar to one raw input: `text="一个笑脸"`, `image="cat.png"`, ...

        Raises ConfigError for a modality that the index's task does not encode, BadInput for an
        input that cannot be used.
        """
        if self.predictor is None:
            raise ConfigError("the index has no model to encode queries; build or open it with one")
        values = {name: [value] for name, value in media.items()}
        return self.hits(self.predictor.encode(self.task, None, None, **values)[0], k)

    def hits(self, query_D: Vectors, k: int) -> list[Hit]:
        """The k most similar items, best first; equal scores in the order of the entries."""
        scores = self.vectors @ query_D
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(float(scores[i]), self.entries[i]) for i in best]

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


def own_items(predictor: Predictor, task: str, modality: str, data: str | Path) -> Items:
    """A user's own items. Raises ConfigError for data that cannot be read."""
    field = _field(predictor, task, modality)
    found = read_inputs(data, [field], predictor.task(task).columns, optional=["text"])
    return Items({"": found.rows}, state(found.rows))


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
    stored there."""
    mark = fingerprint(predictor.model, items)
    file = folder / f"{task}.{modality}.safetensors"
    stored = _read(file, mark, predictor, items, task, modality)
    if stored is None:
        stored = embed(predictor, items, task, modality, progress)
        _write(stored, file, mark)
    return stored


def embed(
    predictor: Predictor,
    items: Items,
    task: str,
    modality: str,
    progress: Progress | None = None,
) -> Index:
    """Embed all items. Raises ConfigError when none can be read."""
    field, total = _field(predictor, task, modality), len(items)
    entries: list[Entry] = []
    skipped: list[SkippedSample] = []
    vectors: list[Vectors] = []
    rows, ahead = tee(items)
    encoded = predictor.encode_each(task, modality, (row[field] for _, _, row in ahead))
    captions = field if modality == "text" else "text"
    for (split, number, row), vector in zip(rows, encoded, strict=True):
        if isinstance(vector, BadInput):
            skipped.append(SkippedSample(task, row["key"], str(vector)))
        else:
            entries.append(Entry(row["key"], first_text(row.get(captions, "")), split, number))
            vectors.append(vector)
        if progress:
            progress(f"{task} · {modality}", len(entries) + len(skipped), total)
    if not vectors:
        reason = f"{skipped[0].key}: {skipped[0].reason}" if skipped else "there are none"
        raise ConfigError(f"task {task!r}: none of its {total} samples could be read ({reason})")
    return Index(task, modality, np.stack(vectors), entries, skipped, predictor, items)


def fingerprint(model: Model, items: Items) -> str:
    """A hash of the weights, the tokenizers and the data."""
    digest = hashlib.sha256(items.fingerprint.encode())
    digest.update(weights_fingerprint(model.state_dict()).encode())
    for name, content in sorted(model.assets.items()):
        digest.update(name.encode() + content)
    return digest.hexdigest()


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
            return Index(task, modality, vectors, entries, skipped, predictor, items)
    except ConfigError as error:
        warnings.warn(f"{error}; the index is built anew", stacklevel=2)
        return None

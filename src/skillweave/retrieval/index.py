"""An exact index in memory: unit vectors of a run's samples, and where each came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from skillweave.batch import Example, Layout, Modality, SkippedSample
from skillweave.config import ConfigError
from skillweave.config.data import Split
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput, Processor, build_processors
from skillweave.data.sources import Source
from skillweave.evaluation.chance import first
from skillweave.evaluation.predictions import evaluating
from skillweave.inference.api import BATCH, BUCKET, encode, single_pass
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import open_fields, task_of
from skillweave.weights.files import fingerprint as hash_weights

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FOLDER = "index"
"""Where a run keeps its indexes."""

Progress = Callable[[str, int, int], None]
"""Called with the task, samples done and samples in all."""


@dataclass(frozen=True)
class Entry:
    """A sample in the index: its key, its first caption, its split and its row there."""

    key: str
    caption: str
    split: Split
    row: int


@dataclass(frozen=True)
class Hit:
    """An answer: cosine similarity and the sample."""

    score: float
    entry: Entry


@dataclass(frozen=True)
class Index:
    """`vectors`: [N, D] unit float32, one per entry, of one modality as one task encodes it."""

    task: str
    modality: str
    vectors: NDArray[np.float32]
    entries: Sequence[Entry]
    skipped: Sequence[SkippedSample] = ()

    def search(self, query_D: NDArray[np.float32], k: int) -> list[Hit]:
        """The k most similar entries, best first; equal scores in the order of the entries."""
        scores = self.vectors @ query_D
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(float(scores[i]), self.entries[i]) for i in best]


def query(model: Model, index: Index, k: int = 5, **media: Any) -> list[Hit]:
    """The k entries most similar to one raw input: `text="一个笑脸"`, `image="cat.png"`, ...

    Raises ConfigError for a modality that the index's task does not encode, BadInput for an input
    that cannot be used.
    """
    return index.search(
        encode(model, index.task, **{name: [value] for name, value in media.items()})[0], k
    )


def searchable(model: Model, recipe: RecipeConfig) -> dict[str, tuple[str, ...]]:
    """Retrieval task → the modalities that it encodes alone; pretraining tasks last."""
    found = {}
    for name in sorted(recipe.tasks, key=lambda n: task_of(recipe, n).pretraining):
        spans = model.config.tasks[name].spans
        # of a clip's frames none stands for the clip
        if task_of(recipe, name).target == "contrastive" and len(spans) == 2:
            found[name] = tuple(span.modality.value for span in spans)
    return found


def task_for(model: Model, recipe: RecipeConfig, modality: str, asked: str = "text") -> str:
    """The retrieval task that relates `asked` inputs to items of `modality`. Raises ConfigError
    when there is none."""
    tasks = searchable(model, recipe)
    for name, modalities in tasks.items():
        if {modality, asked} <= set(modalities):
            return name
    known = ", ".join(f"{' and '.join(m)} ({name})" for name, m in tasks.items()) or "none"
    raise ConfigError(f"no task of this run relates {asked} to {modality}; it can search {known}")


def build_index(
    model: Model,
    recipe: RecipeConfig,
    modality: str,
    splits: Sequence[Split] = SPLITS,
    task: str | None = None,
    progress: Progress | None = None,
) -> Index:
    """The index of a modality's samples, from the run folder if weights and data are the same, else
    built and stored there.

    `task`: which retrieval task's vectors; by default the one that relates text to the modality.
    Raises ConfigError for a modality that cannot be searched.
    """
    name = task or task_for(model, recipe, modality)
    single_pass(model, name, modality)
    sources = _sources(recipe, name, splits)
    mark = fingerprint(
        model, recipe, name, {split: len(source) for split, source in sources.items()}
    )
    file = recipe.folder / FOLDER / f"{name}.{modality}.safetensors"
    stored = _read(file, mark)
    if stored is None:
        stored = _embed(model, recipe, name, modality, sources, progress)
        _write(stored, file, mark)
    return stored


def fingerprint(model: Model, recipe: RecipeConfig, task: str, sizes: Mapping[str, int]) -> str:
    """A hash of the weights, the tokenisers, the task's data settings and the splits' sizes."""
    digest = hashlib.sha256(
        json.dumps([recipe.tasks[task].data.model_dump(mode="json"), dict(sizes)]).encode()
    )
    digest.update(hash_weights(model.state_dict()).encode())
    for name, content in sorted(model.assets.items()):
        digest.update(name.encode() + content)
    return digest.hexdigest()


def _sources(recipe: RecipeConfig, task: str, splits: Sequence[Split]) -> dict[Split, Source]:
    """The splits that the data has. Raises the first split's ConfigError when it has none."""
    sources: dict[Split, Source] = {}
    errors = []
    for split in splits:
        try:
            sources[split] = open_fields(recipe, task, split)
        except ConfigError as error:
            errors.append(error)
    if not sources:
        raise errors[0]
    return sources


def _embed(
    model: Model,
    recipe: RecipeConfig,
    task: str,
    modality: str,
    sources: Mapping[Split, Source],
    progress: Progress | None,
) -> Index:
    layout, field = single_pass(model, task, modality), _field(recipe, task, modality)
    processor = build_processors(model.config, model.assets, recipe.limits)[
        layout.spans[0].modality
    ]
    total, device = sum(map(len, sources.values())), next(model.parameters()).device
    entries: list[Entry] = []
    skipped: list[SkippedSample] = []
    vectors = []
    with evaluating(model):
        resolved = model.resolve(task)
        for found, examples in _examples(layout, processor, sources, field, skipped):
            entries += found
            batch = collate(layout, examples, model.config.streams, BUCKET)
            vectors.append(model.embed(batch.to(device), resolved)[0].float().cpu())
            if progress:
                progress(f"{task} · {modality}", len(entries) + len(skipped), total)
    if not vectors:
        reason = f"{skipped[0].key}: {skipped[0].reason}" if skipped else "there are none"
        raise ConfigError(f"task {task!r}: none of its {total} samples could be read ({reason})")
    return Index(task, modality, torch.cat(vectors).numpy(), entries, skipped)


def _field(recipe: RecipeConfig, task: str, modality: str) -> str:
    """The field whose values are looked for: of two texts the second."""
    return "second" if modality == "text" and "second" in task_of(recipe, task).fields else modality


def _examples(
    layout: Layout,
    processor: Processor,
    sources: Mapping[Split, Source],
    field: str,
    skipped: list[SkippedSample],
) -> Iterator[tuple[list[Entry], list[Example]]]:
    """Samples in groups of `BATCH`; broken ones go to `skipped`."""
    is_text = layout.spans[0].modality is Modality.TEXT
    entries: list[Entry] = []
    examples: list[Example] = []
    for split, source in sources.items():
        for i in range(len(source)):
            row = source[i]
            value = first(row[field]) if is_text else row[field]
            try:
                examples.append(Example((processor(value),), {}, row["key"]))
            except BadInput as error:
                skipped.append(SkippedSample(layout.task, row["key"], str(error)))
                continue
            entries.append(
                Entry(row["key"], first(row.get(field if is_text else "text", "")), split, i)
            )
            if len(examples) == BATCH:
                yield entries, examples
                entries, examples = [], []
    if examples:
        yield entries, examples


def _write(index: Index, file: Path, mark: str) -> None:
    """Vectors and entries, each with the fingerprint, so that a write cut short is noticed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {"fingerprint": mark, "task": index.task, "modality": index.modality}
    rows = {
        "entries": [asdict(e) for e in index.entries],
        "skipped": [asdict(s) for s in index.skipped],
    }
    partial = file.with_suffix(".partial")
    save_file({"vectors": index.vectors}, partial, {"fingerprint": mark})
    partial.replace(file)
    partial.write_text(json.dumps(about | rows, ensure_ascii=False), "utf-8")
    partial.replace(file.with_suffix(".json"))


def _read(file: Path, mark: str) -> Index | None:
    """A stored index, None when there is none or its fingerprint is another."""
    listing = file.with_suffix(".json")
    if not (file.is_file() and listing.is_file()):
        return None
    about = json.loads(listing.read_text("utf-8"))
    with safe_open(file, framework="np") as stored:
        if about["fingerprint"] != mark or (stored.metadata() or {}).get("fingerprint") != mark:
            return None
        vectors = stored.get_tensor("vectors")
    entries = [Entry(**entry) for entry in about["entries"]]
    return Index(
        about["task"],
        about["modality"],
        vectors,
        entries,
        [SkippedSample(**skip) for skip in about["skipped"]],
    )

"""A recipe for a folder of data: which tasks its files can train, and with which settings.

Nothing is asked. What had to be assumed is listed, so that a person can correct the recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.data.sources import SUFFIXES, open_table
from skillweave.data.sources.base import FIELDS, MEDIA, Table
from skillweave.data.sources.folder import METADATA, walk
from skillweave.data.sources.hub import is_saved_dataset
from skillweave.data.sources.split import SPLIT_NAMES, describe_skipped
from skillweave.data.values import as_text, class_name, is_missing
from skillweave.recipe import RecipeConfig
from skillweave.tasks import TASKS
from skillweave.tasks.resolve import resolve
from skillweave.tasks.task import Task

START = "skillweave/tiny"
"""The model that a recipe starts from unless another is named."""
SAMPLED_ROWS = 1000
"""Rows of a table that are looked at."""
MOST_CLASSES = 1000
EPOCHS, FEWEST_STEPS, MOST_STEPS = 20, 100, 5000
"""Passes over the data, within bounds of the number of updates."""
BATCH_SIZE = {Modality.SOUND: 16, Modality.VIDEO: 16}
"""Samples of a batch, 32 for other modalities."""
COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "img", "picture", "photo", "image_path"),
    "sound": ("sound", "audio", "recording", "speech", "wav", "audio_path"),
    "video": ("video", "clip", "video_path"),
    "code": ("code", "function", "func", "whole_func_string", "func_code_string", "snippet"),
    "transcript": ("transcript", "transcription"),
    "question": ("question",),
    "answers": ("answers",),
    "choices": ("choices", "options"),
    "tags": ("tags", "ner_tags", "pos_tags"),
    "labels": ("labels",),
    "score": ("score", "similarity_score", "rating", "stars"),
    "label": ("label", "class", "category", "sentiment", "emotion", "intent", "topic", "target"),
    "second": ("second", "sentence2", "text2", "text_b", "hypothesis", "question2", "positive"),
    "text": (
        *("text", "texts", "caption", "captions", "sentence", "sentence1", "text1", "text_a"),
        *("premise", "question1", "anchor", "tokens", "context", "review", "content", "body"),
        *("description", "docstring", "func_documentation_string", "utterance", "title"),
    ),
}
"""Field of a task → what columns that hold it are often called, the usual name first."""
NO_CONTENT = ("key", "id", "idx", "index", "split", "group", "file_name", "path", "url")
"""Columns that are never taken for a field."""
SHARD_NUMBER = re.compile(r"\d+")


@dataclass
class Draft:
    """A recipe as it is written, and what it assumes."""

    recipe: dict[str, Any]
    assumptions: list[str] = field(default_factory=list)

    def to_yaml(self, file: str) -> str:
        """The recipe with its assumptions as comments. `file`: what it will be called."""
        told = [
            f"# Written by: skillweave init. To train: skillweave train {file}",
            "# Assumptions; change what is wrong:",
            *(f"#   - {line}" for line in self.assumptions),
        ]
        text = yaml.safe_dump(self.recipe, sort_keys=False, allow_unicode=True, width=100)
        return "\n".join(told) + "\n" + text


@dataclass(frozen=True)
class _Found:
    """A source in the folder: its path, or a path for each split, and its table of training
    rows."""

    path: str | dict[str, str]
    table: Table

    @property
    def name(self) -> str:
        """A name for tasks on it."""
        shown = self.path if isinstance(self.path, str) else next(iter(self.path.values()))
        return re.sub(r"\W+", "_", Path(shown).stem).strip("_").lower()


def draft_recipe(place: str | Path, name: str | None = None, start_from: str = START) -> Draft:
    """A recipe that trains on what is in a folder, or in one file, and that resolves.

    `name`: of the run, by default that of the folder. `start_from`: see `RecipeConfig`. Raises
    ConfigError where nothing can train a task, with what was found.
    """
    place = Path(place)
    if not place.exists():
        raise ConfigError(f"{place}: no such folder or file")
    draft = Draft({"name": name or _run_name(place), "start_from": start_from, "tasks": {}})
    rejected: list[str] = []
    sizes: dict[str, int] = {}
    for found in _sources(place, rejected):
        columns = _fields(found.table, draft.assumptions)
        entries = _trainable(columns)
        if not entries:
            shown = ", ".join(found.table.columns)
            rejected.append(f"{found.table.path}: no task is trained by its columns {shown}")
        for entry in entries:
            task = entry.name if entry.name not in sizes else f"{entry.name}_{found.name}"
            sizes[task] = _training_rows(found)
            draft.recipe["tasks"][task] = _task(entry, task, found, columns, sizes[task])
            draft.assumptions.append(f"{task}: {entry.summary}, {sizes[task]:,} training samples")
    if not sizes:
        raise ConfigError(f"{place}: no data that train a task\n" + "\n".join(rejected))
    draft.assumptions += rejected
    _finish(draft, sizes)
    resolve(RecipeConfig.parse(draft.recipe))
    return draft


def _run_name(place: Path) -> str:
    return re.sub(r"[^\w.-]+", "-", place.resolve().stem).strip("-.") or "run"


def _sources(place: Path, rejected: list[str]) -> Iterator[_Found]:
    """The sources in a folder that have rows; why others have none goes to `rejected`."""
    for path in [str(place)] if place.is_file() else _paths(place):
        first = path if isinstance(path, str) else path["train"]
        try:
            table = open_table(first)
            if len(table):
                yield _Found(path, table)
            else:
                rejected.append(f"{first}: no rows{describe_skipped(table)}")
        except ConfigError as error:
            rejected.append(str(error))


def _paths(folder: Path) -> Iterator[str | dict[str, str]]:
    """Paths of a recipe for the tables in a folder, for its media, and for its functions."""
    if is_saved_dataset(folder):
        yield f"hf:{folder}"
        return
    files = list(walk(folder))
    tables = [file for file in files if _is_table(file)]
    yield from _grouped(folder, tables)
    kinds = {FIELDS.get(file.suffix[1:].lower()) for file in files}
    texts = [file for file in files if file.suffix.lower() == ".txt"]
    if kinds & MEDIA or any(file.name in METADATA for file in files):
        yield str(folder)
    elif texts and not tables:
        in_classes = all(len(file.parts) > 1 for file in texts)
        yield from [str(folder)] if in_classes else (str(folder / file) for file in texts)
    if "code" in kinds and any(file.suffix == ".py" for file in files):
        yield f"functions:{folder}"


def _is_table(file: PurePosixPath) -> bool:
    plain = file.with_suffix("") if file.suffix == ".gz" else file
    return plain.suffix.lower() in SUFFIXES and plain.suffix != ".txt" and file.name not in METADATA


def _grouped(folder: Path, files: Iterable[PurePosixPath]) -> Iterator[str | dict[str, str]]:
    """Shards as one pattern, and files that are named after splits as one source."""
    shards: dict[str, list[str]] = {}
    for file in files:
        pattern = str(file.with_name(SHARD_NUMBER.sub("*", file.name)))
        shards.setdefault(pattern, []).append(str(file))
    splits: dict[str, dict[str, str]] = {}
    for pattern, members in shards.items():
        path = PurePosixPath(pattern if len(members) > 1 else members[0])
        words = re.split(r"[-_.]", path.name.lower())
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
        base = "_".join(word for word in words if word not in SPLIT_NAMES)
        key = str(path) if split is None else str(path.with_name(base))
        splits.setdefault(key, {})[split or ""] = str(folder / path)
    for paths in splits.values():
        if "train" in paths and len(paths) > 1:
            yield paths
        else:
            yield from paths.values()


def _fields(table: Table, assumptions: list[str]) -> dict[str, str]:
    """Field → the column that seems to hold it."""
    step = max(1, len(table) // SAMPLED_ROWS)
    plain = [name for name in table.columns if name not in table.media]
    rows = [table.read(i, plain) for i in range(0, len(table), step)][:SAMPLED_ROWS]
    values = {name: [row[name] for row in rows if not is_missing(row[name])] for name in plain}
    values = {name: cells for name, cells in values.items() if cells}
    free = [n for n in table.columns if n.lower() not in NO_CONTENT]
    found: dict[str, str] = {}
    for name, names in COLUMN_NAMES.items():
        able = [c for c in free if c not in found.values() and _may_hold(name, c, table, values)]
        by_name = [c for usual in names for c in able if c.lower() == usual]
        if column := next(iter(by_name or (able if name in MEDIA else [])), None):
            found[name] = column
    rest = [c for c in free if c not in found.values() and c in values]
    usual = {one for name in COLUMN_NAMES if name != "text" for one in COLUMN_NAMES[name]}
    unnamed = [c for c in rest if c.lower() not in usual]
    if not {"text", "transcript"} & found.keys() and (text := _longest_text(unnamed, values)):
        found["text"] = text
        assumptions.append(f"{table.path}: the column {text!r} holds the texts")
    if "sound" in found and "transcript" not in found and "text" in found:
        found["transcript"] = found.pop("text")
    alone = not {"second", "transcript", "score", "label"} & found.keys()
    if alone and len(found) == 1 and (label := _likely_class(rest, found, values)):
        found["label"] = label
        assumptions.append(f"{table.path}: the column {label!r} holds the classes")
    return found


def _may_hold(field: str, column: str, table: Table, values: Mapping[str, list[Any]]) -> bool:
    """Whether the cells of a column can be those of a field."""
    cells = values.get(column, [])
    if field in MEDIA:
        if column in table.media:
            return column.lower() in COLUMN_NAMES[field]
        paths = [FIELDS.get(Path(one).suffix[1:].lower()) for one in cells if isinstance(one, str)]
        return bool(cells) and len(paths) == len(cells) and set(paths) == {field}
    if field == "label":
        return _is_class(cells)
    if field == "score":
        return all(_is_number(one) for one in cells) and bool(cells)
    if field in ("answers", "choices", "tags", "labels"):
        return bool(cells)
    return bool(cells) and all(isinstance(one, str | list) for one in cells)


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _is_class(cells: Sequence[Any]) -> bool:
    """Whether cells name classes: at least two, each several times."""
    names = [class_name(one) for one in cells]
    distinct = set(names)
    return (
        None not in distinct
        and 2 <= len(distinct) <= min(MOST_CLASSES, len(cells) / 2)
        and not any(isinstance(one, float) and not one.is_integer() for one in cells)
    )


def _longest_text(columns: Sequence[str], values: Mapping[str, list[Any]]) -> str | None:
    """The column of the longest texts, if these are more than words that name classes."""
    lengths = {
        name: sum(map(len, values[name])) / len(values[name])
        for name in columns
        if all(isinstance(one, str) for one in values[name]) and not _is_class(values[name])
    }
    return max(lengths, key=lengths.__getitem__, default=None)


def _likely_class(
    columns: Sequence[str], found: Mapping[str, str], values: Mapping[str, list[Any]]
) -> str | None:
    """The column with the fewest classes that is no text."""
    able = [name for name in columns if name not in found.values() and _is_class(values[name])]
    return min(able, key=lambda name: len(set(map(as_text, values[name]))), default=None)


def _trainable(found: Mapping[str, str]) -> list[Task]:
    """The tasks whose fields are there, without those that use fewer fields than another."""
    able = [e for e in TASKS.values() if e.drafted and set(e.fields) <= found.keys()]
    return [
        entry for entry in able if not any(set(entry.fields) < set(other.fields) for other in able)
    ]


def _training_rows(found: _Found) -> int:
    """About how many of the rows train."""
    table = found.table
    if isinstance(found.path, dict):
        return len(table)
    if "split" not in table.columns:
        return max(1, round(0.8 * len(table)))
    splits = [SPLIT_NAMES.get(str(one).lower()) for one in table.column("split")]
    return splits.count("train") or len(table)


def _task(
    entry: Task, name: str, found: _Found, columns: Mapping[str, str], rows: int
) -> dict[str, Any]:
    """A task of the recipe."""
    data: dict[str, Any] = {"path": found.path}
    if renamed := {f: columns[f] for f in entry.fields if columns[f] != f}:
        data["columns"] = renamed
    parted = isinstance(found.path, dict) or "split" in found.table.columns
    if parted and not _has_validation(found):
        data["validation_share"] = 0.1
    size = min(BATCH_SIZE.get(span.modality, 32) for span in entry.spans)
    task = {} if entry.name == name else {"kind": entry.name}
    return {**task, "data": data, "batch_size": max(2, min(size, rows // 2))}


def _has_validation(found: _Found) -> bool:
    if isinstance(found.path, dict):
        return "validation" in found.path
    return any(
        SPLIT_NAMES.get(str(one).lower()) == "validation" for one in found.table.column("split")
    )


def _finish(draft: Draft, sizes: Mapping[str, int]) -> None:
    """The shares of the tasks, and the training."""
    recipe, tasks = draft.recipe, draft.recipe["tasks"]
    epoch = sum(math.ceil(rows / tasks[name]["batch_size"]) for name, rows in sizes.items())
    steps = min(max(EPOCHS * epoch, FEWEST_STEPS), MOST_STEPS)
    for name, rows in sizes.items():
        if len(sizes) > 1:
            tasks[name]["weight"] = round(math.sqrt(rows), 1)
    targets = {TASKS[task.get("kind", name)].targets[0] for name, task in tasks.items()}
    if recipe["start_from"] == START and "classification" in targets:
        recipe["model"] = {"targets": {"classification": {"pooling": "mean"}}}  # as it was trained
    recipe["training"] = {
        "steps": steps,
        "optimizer": {"learning_rate": 5e-4, "warmup": 0.05, "max_grad_norm": 0.5},
        "validate_every": max(1, steps // 4),
        "checkpoint_every": max(1, steps // 4),
    }
    draft.assumptions += [
        f"start_from {recipe['start_from']}; its input sizes are those of the model",
        "splits are those of files, folders or a column with such names; data without them are"
        " split into 80 % for training, 10 % for validation and 10 % for test",
        f"{steps:,} updates are about {steps / epoch:.0f} passes over the data",
    ]

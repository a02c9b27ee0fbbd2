"""Answers for raw inputs: a class, a number, labels of words, an answer, a transcript, or what was
found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from skillweave.batch import Example
from skillweave.config import ConfigError, choose
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput
from skillweave.data.sources import MEDIA, open_rows
from skillweave.data.sources.base import Selection, name_fields
from skillweave.data.sources.split import first_skip
from skillweave.evaluation.kinds import (
    Answered,
    Classified,
    MultiLabelled,
    Predictions,
    Scored,
    Tagged,
    Transcribed,
    Written,
)
from skillweave.evaluation.predictions import encode_candidates, predict_task
from skillweave.inference.api import encode
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.retrieval.index import build_index, searchable
from skillweave.tasks.candidates import build_candidates
from skillweave.tasks.dataset import build_tools, task_of
from skillweave.tasks.task import Row, Task, Tools

Answer = dict[str, Any]
T = TypeVar("T")
AT_ONCE = 32
"""Inputs answered at once."""
BUCKET = 8
"""Lengths are padded to a multiple of it."""


def predict(
    model: Model, recipe: RecipeConfig, task: str, values: Iterable[Any], k: int = 5
) -> Iterator[Answer]:
    """One answer per input, in order: `class` and `probability` (and all `probabilities`),
    `labels`, `score`, `tags`, `answer`, `transcript`, or `found` (top k).

    `values`: rows under the task's field names, as `{"text": ..., "second": ...}`; of tasks that
    are given one thing also that alone. Retrieval takes the task's query (text) and searches all of
    the run's samples. A broken input gives `{"error": reason}`. Raises ConfigError for an unknown
    task or one that has nothing to predict.
    """
    choose(model.config.tasks, task, "task")
    entry = _answering(recipe, task)
    if entry.target == "contrastive":
        return _find(model, recipe, task, values, k)
    return _answer(model, recipe, task, entry, values)


def fields_given(recipe: RecipeConfig, task: str) -> tuple[str, ...]:
    """What an input of a task consists of; of retrieval the query alone. Raises ConfigError as
    `predict` does."""
    entry = _answering(recipe, task)
    return entry.given[:1] if entry.target == "contrastive" else entry.given


def read_words(fields: Sequence[str], words: Sequence[str]) -> list[Row]:
    """Inputs given on the command line, files or (text and code alone) texts, as rows. Raises
    ConfigError for none, or where a task is given more than one thing."""
    if not words:
        raise ConfigError(f"nothing to answer for: give {fields[0]} inputs, or --input FILE")
    if len(fields) > 1:
        raise ConfigError(
            f"the task is given {', '.join(fields)}: write them as columns of a file, and give"
            " --input FILE"
        )
    is_text = fields[0] in ("text", "code")
    return [
        {fields[0]: word if is_text and not Path(word).is_file() else Path(word)} for word in words
    ]


def read_rows(recipe: RecipeConfig, task: str, file: str) -> tuple[list[Row], list[Row], str]:
    """The rows of a .jsonl, .csv, .tsv or .parquet file: under the task's field names, and as they
    are, without media; and how many could not be read, and why.

    Columns are named as in the recipe's `data.columns`, where the file has them. Media paths are
    relative to the file's folder. Raises ConfigError for a file that cannot be read or lacks a
    column.
    """
    table, fields = open_rows(file), fields_given(recipe, task)
    named = {
        f: c
        for f, c in recipe.tasks[task].data.columns.items()
        if f in fields and {*([c] if isinstance(c, str) else c)} <= {*table.columns}
    }
    rows = Selection(table, range(len(table)), name_fields(table, named, fields))
    shown = [
        name
        for name in table.columns
        if name not in table.media and (name not in MEDIA or name in fields)
    ]
    return (
        list(rows),
        [table.read(i, shown) for i in range(len(table))],
        first_skip(table).lstrip(", "),
    )


def write_rows(file: str | Path, own: Iterable[Row], answers: Iterable[Answer]) -> None:
    """Write each input's own columns and its answer, whole or not at all, as .jsonl or .parquet.

    A column of the input that has the name of one of the answers keeps it; the answer's is then
    `predicted_NAME`. Raises ConfigError for another kind of file.
    """
    path, partial = Path(file), Path(f"{file}.partial")
    if path.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(f"{file}: predictions are written as .jsonl or .parquet")
    rows = [
        {**row, **{f"predicted_{n}" if n in row else n: v for n, v in a.items()}}
        for row, a in zip(own, answers, strict=True)
    ]
    if path.suffix == ".jsonl":
        partial.write_text(
            "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows),
            "utf-8",
        )
    else:
        import pyarrow.parquet  # only where it is asked for

        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = pyarrow.Table.from_pylist(
            [{name: row.get(name) for name in names} for row in rows]
        )
        pyarrow.parquet.write_table(columns, partial)
    partial.replace(path)


def _answering(recipe: RecipeConfig, task: str) -> Task:
    """The entry of a task that answers. Raises ConfigError for one that does not."""
    entry = task_of(recipe, task)
    if entry.target in PRETRAINING:
        usable = ", ".join(_usable(recipe))
        raise ConfigError(
            f"task {task!r} is a pretraining task (target {entry.target}); predict with {usable}"
        )
    if not _answers(entry):
        raise ConfigError(
            f"task {task!r} is measured on texts that are there; it has no answer of its own for an"
            " input"
        )
    return entry


def _answers(entry: Task) -> bool:
    """Whether a task that chooses words makes a text of them; true of all other tasks."""
    words = entry.candidates == "words" or entry.target == "lm"
    return not words or (entry.answer is not None and not entry.pretraining)


def _usable(recipe: RecipeConfig) -> list[str]:
    usable = [
        name
        for name in recipe.tasks
        if (e := task_of(recipe, name)).target not in PRETRAINING and _answers(e)
    ]
    return usable or ["nothing: this run has pretraining tasks only"]


def _find(
    model: Model, recipe: RecipeConfig, task: str, values: Iterable[Any], k: int
) -> Iterator[Answer]:
    if task not in searchable(model, recipe):
        raise ConfigError(
            f"task {task!r} compares several passes; it can be measured, but not searched"
        )
    asked, wanted = (span.modality.value for span in model.config.tasks[task].spans)
    index = build_index(model, recipe, wanted, task=task)
    for value in values:
        query = value[asked] if isinstance(value, Mapping) else value
        try:
            yield {
                "found": [
                    hit_row(hit)
                    for hit in index.search(encode(model, task, **{asked: [query]})[0], k)
                ]
            }
        except BadInput as error:
            yield {"error": str(error)}


def _answer(
    model: Model, recipe: RecipeConfig, task: str, entry: Task, values: Iterable[Any]
) -> Iterator[Answer]:
    tools = build_tools(
        recipe.model_copy(update={"model": model.config}), task, model.assets, labelled=False
    )
    candidates = build_candidates(task, entry, tools)
    vectors = encode_candidates(model, candidates.batches()) if candidates else None
    for number, group in enumerate(_groups(values)):
        examples, errors = [], {}
        for i, value in enumerate(group, number * AT_ONCE):
            row = (
                value
                if isinstance(value, Mapping) and entry.given[0] in value
                else {entry.given[0]: value}
            )
            try:
                examples += _examples(entry, tools, {**row, "key": str(i)})
            except BadInput as error:
                errors[str(i)] = {"error": str(error)}
        found = _predict(model, task, entry, tools, examples, vectors) if examples else {}
        yield from (
            {**found, **errors}[str(i)]
            for i in range(number * AT_ONCE, number * AT_ONCE + len(group))
        )


def _groups(values: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(values)
    while group := list(islice(rest, AT_ONCE)):
        yield group


def _examples(entry: Task, tools: Tools, row: Row) -> list[Example]:
    for field in entry.given:
        if row.get(field) is None:
            raise BadInput(f"no {field}")
    return entry.parts(row, tools) if entry.parts else [entry.build(row, tools, None)]


def _predict(
    model: Model,
    task: str,
    entry: Task,
    tools: Tools,
    examples: Sequence[Example],
    candidates: Tensor | None,
) -> dict[str, Answer]:
    """Answers by key."""
    layout = entry.layout(task) if entry.candidates is None else entry.layout(task).only(0)
    batches = (
        collate(layout, group, model.config.streams, BUCKET, answers=model.config.target_embedding)
        for group in _groups(examples)
    )
    found = predict_task(model, task, batches, candidates)
    classes = list(tools.config.classes) or getattr(tools.target, "classes", [])
    return {key: ANSWERS[type(found)](found, i, classes) for i, key in enumerate(found.keys)}


def _class(found: Classified, i: int, classes: Sequence[str]) -> Answer:
    shares = found.probabilities[i].tolist()
    # choices have no names: their numbers, from 0
    names = classes or [str(c) for c, share in enumerate(shares) if share > 0]
    best = max(range(len(names)), key=shares.__getitem__)
    probabilities = dict(zip(names, shares, strict=False))
    return {"class": names[best], "probability": shares[best], "probabilities": probabilities}


def _labels(found: MultiLabelled, i: int, classes: Sequence[str]) -> Answer:
    shares = dict(zip(classes, found.probabilities[i].tolist(), strict=True))
    return {
        "labels": [name for name, share in shares.items() if share > 0.5],
        "probabilities": shares,
    }


ANSWERS: dict[type[Predictions], Callable[[Any, int, Sequence[str]], Answer]] = {
    Classified: _class,
    MultiLabelled: _labels,
    Scored: lambda found, i, classes: {"score": float(found.values[i])},
    Tagged: lambda found, i, classes: {"tags": found.hypotheses[i]},
    Answered: lambda found, i, classes: {"answer": found.hypotheses[i]},
    Transcribed: lambda found, i, classes: {"transcript": found.hypotheses[i]},
    Written: lambda found, i, classes: {"answer": found.hypotheses[i]},
}
"""Kind of predictions → one sample's answer."""

PRETRAINING = (
    "mlm",
    "bilm",
    "replaced",
    "masked_unit",
    "masked_image_token",
    "masked_pixels",
    "masked_autoencoder",
)
"""Kinds of targets that answer nothing by themselves."""


def hit_row(hit: Any) -> Answer:
    """A hit as plain data."""
    return {
        "score": hit.score,
        "key": hit.entry.key,
        "caption": hit.entry.caption,
        "split": hit.entry.split,
    }

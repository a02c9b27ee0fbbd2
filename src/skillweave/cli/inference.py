"""Commands that run a model on new inputs: `predict`, `features`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import Device, Run, Task, open_model

if TYPE_CHECKING:
    from skillweave.inference.whitening import Vectors
    from skillweave.tasks.task import Row


def predict(
    run: Run,
    inputs: Annotated[
        list[str] | None,
        Argument(metavar="INPUT", help="Files, or texts for tasks over text.", show_default=False),
    ] = None,
    *,
    task: Task,
    input: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="A .jsonl, .csv, .tsv or .parquet file whose columns are named as in the data of"
            " the recipe.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="A .jsonl or .parquet file for the columns of the input and the answers.",
        ),
    ] = None,
    k: Annotated[int, Option(min=1, help="Answers per query of a retrieval task.")] = 5,
    device: Device = "auto",
) -> None:
    """Answer for raw inputs, a JSON line for each.

    An answer is a class, a number, labels, a text, a transcript, or the samples found.
    """
    from skillweave.inference.predict import fields_given, predict, read_words, write_rows

    words = inputs or []
    if input and words:
        raise sw.ConfigError(f"give inputs such as {words[0]} or --input {input}, not both")
    model, recipe = open_model(run, device)
    if input:
        rows, own = _read_rows(recipe, task, input)
    else:
        rows = read_words(fields_given(recipe, task), words)
        own = [{"input": word} for word in words]
    answers = predict(model, recipe, task, rows, k)
    if out:
        write_rows(out, own, answers)
        return
    for row, answer in zip(own, answers, strict=True):
        print(json.dumps({**row, **answer}, ensure_ascii=False, default=str), flush=True)


def features(
    run: Run,
    *,
    task: Task,
    input: Annotated[str, Option(metavar="FILE", help="A .jsonl, .csv, .tsv or .parquet file.")],
    out: Annotated[
        Path,
        Option(metavar="FILE", help=".npy, or .jsonl or .parquet with the columns of the input."),
    ],
    whiten: Annotated[
        int | None, Option(metavar="K", help="Whiten the vectors and keep K dimensions.")
    ] = None,
    fit: Annotated[
        str | None,
        Option(
            metavar="FILE", help="The rows to fit the whitening on (default: those of --input)."
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Write a vector for each row of a file."""
    import numpy as np

    from skillweave.inference.predict import fields_given, write_rows
    from skillweave.inference.whitening import Whitening

    model, recipe = open_model(run, device)
    field = fields_given(recipe, task)[0]
    rows, own = _read_rows(recipe, task, input)
    vectors = _encode(model, task, field, rows)
    if whiten is not None:
        fitted = _encode(model, task, field, _read_rows(recipe, task, fit)[0]) if fit else vectors
        vectors = Whitening.fit(fitted, whiten)(vectors)
    if out.suffix == ".npy":
        np.save(out, vectors)
    else:
        write_rows(out, own, [{"vector": vector} for vector in vectors.tolist()])
    print(f"{out}: {len(vectors):,} vectors of {vectors.shape[1]}")


def _read_rows(recipe: sw.RecipeConfig, task: str, file: str) -> tuple[list[Row], list[Row]]:
    """As `read_rows`; report on standard error how many rows were skipped."""
    from skillweave.inference.predict import read_rows

    rows, own, skipped = read_rows(recipe, task, file)
    if skipped:
        print(f"{file}: {skipped}", file=sys.stderr)
    return rows, own


def _encode(model: sw.Model, task: str, field: str, rows: list[Row]) -> Vectors:
    if field in ("image", "sound", "video", "code"):
        return sw.encode(model, task, **{field: [row[field] for row in rows]})
    return sw.encode(model, task, text=[_text(row, field) for row in rows])


def _text(row: Row, field: str) -> str:
    from skillweave.data.processors import BadInput
    from skillweave.tasks.build import caption_of

    try:
        return caption_of(row, field)
    except BadInput as error:
        raise BadInput(f"{row['key']}: {error}") from None

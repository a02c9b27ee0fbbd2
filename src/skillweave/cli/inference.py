"""Commands that run a model on new inputs: `predict`, `features`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import (
    Device,
    Incomplete,
    Results,
    SavedModel,
    Task,
    open_predictor,
    require_writable,
    results_shown,
)

if TYPE_CHECKING:
    from skillweave.data.processors import BadInput
    from skillweave.inference.inputs import Inputs
    from skillweave.inference.predictor import Vectors


def predict(
    model: SavedModel,
    inputs: Annotated[
        list[str] | None,
        Argument(
            metavar="INPUT",
            help="Files, or texts for tasks over text; for a task with several fields one of each,"
            " such as a picture and a question. Write -- before a text that begins with -.",
            show_default=False,
        ),
    ] = None,
    *,
    task: Task,
    input: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="A folder of files, or a .jsonl, .csv, .tsv or .parquet file whose columns are"
            " named as in the data of the recipe.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="A .jsonl or .parquet file for the columns of the input and the answers.",
        ),
    ] = None,
    k: Annotated[int, Option(min=1, help="Answers per query of a retrieval task.")] = 5,
    data: Annotated[
        str | None,
        Option(metavar="PATH", help="What a retrieval task searches (default: the run's data)."),
    ] = None,
    zero_shot: Annotated[
        str | None,
        Option(
            metavar="RECIPE",
            help="Take the task from this recipe; the model was not trained on it.",
        ),
    ] = None,
    device: Device = "auto",
) -> Results:
    """Answer for raw inputs, a JSON line for each.

    An answer is a class, a number, labels, a text, a transcript, or the samples found. Inputs
    without an answer have an `error`; the exit status is then 2, after all others are written.
    """
    from skillweave.inference.answers import Writer
    from skillweave.inference.inputs import read_inputs, read_words
    from skillweave.retrieval.stored import index_of

    words = inputs or []
    if input and words:
        raise sw.ConfigError(f"give inputs such as {words[0]} or --input {input}, not both")
    require_writable(out)
    writer = Writer(out, input)
    predictor = _unseen(model, zero_shot, device) if zero_shot else open_predictor(model, device)
    found = predictor.answering(task)
    fields = found.entry.query_fields
    if input:
        given = read_inputs(input, fields, found.columns, found.entry.optional)
    else:
        given = read_words(words, fields)
    _tell_skipped(input, given)
    searched = index_of(predictor, model, found, data) if found.compares_samples else None
    answers = predictor.predict(task, given, searched, k)
    failed = 0
    with results_shown(), writer:
        for row, answer in zip(given.shown, answers, strict=True):
            writer.write(row, answer)
            failed += "error" in answer
    return _answered(failed, len(given), out)


def _answered(failed: int, inputs: int, out: Path | None) -> Results:
    """How many inputs were read, and where the answers are. Raises Incomplete, and so gives the
    exit status 2, if inputs have no answer."""
    found = {"inputs": inputs, "failed": failed, "out": out and str(out)}
    if failed:
        told = f"{failed} of {inputs} inputs have no answer; see their `error`"
        raise Incomplete(told, found)
    return found


def _unseen(model: str, recipe: str, device: str) -> sw.Predictor:
    from skillweave.evaluation.zero_shot import open_unseen
    from skillweave.recipe import find_recipe

    return sw.Predictor(open_unseen(model, find_recipe(recipe), device=device)[0], device=None)


def generate(
    model: SavedModel,
    inputs: Annotated[
        list[str] | None,
        Argument(
            metavar="INPUT",
            help="Texts or files: a prompt for a language model, else what the text is about.",
            show_default=False,
        ),
    ] = None,
    *,
    task: Annotated[
        str | None, Option(metavar="TASK", help="The task (default: the only one that writes).")
    ] = None,
    input: Annotated[
        str | None,
        Option(metavar="FILE", help="A folder of files, or a table with the columns of the task."),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="A .jsonl or .parquet file for the answers; .srt or .vtt for the subtitles of a"
            " recording.",
        ),
    ] = None,
    stream: Annotated[bool, Option("--stream", help="Show the text as it is written.")] = False,
    max_new_tokens: Annotated[
        int | None, Option(metavar="N", min=1, help="Most tokens of an answer.")
    ] = None,
    num_beams: Annotated[
        int | None, Option(metavar="K", min=1, help="Beams of the search; 1: no search.")
    ] = None,
    num_return_sequences: Annotated[
        int | None, Option(metavar="K", min=1, help="Answers for each input.")
    ] = None,
    do_sample: Annotated[
        bool | None, Option("--do-sample", help="Draw each token by its probability.")
    ] = None,
    temperature: Annotated[
        float | None, Option(metavar="T", help="Below 1: more probable tokens. Draws.")
    ] = None,
    top_k: Annotated[int | None, Option(metavar="K", help="Draw among so many tokens.")] = None,
    top_p: Annotated[
        float | None, Option(metavar="P", help="Draw among tokens of this probability.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, Option(metavar="X", help="Above 1: fewer repetitions.")
    ] = None,
    no_repeat_ngram_size: Annotated[
        int | None, Option(metavar="N", help="No sequence of so many tokens occurs twice.")
    ] = None,
    stop_strings: Annotated[
        list[str] | None, Option("--stop", metavar="TEXT", help="End an answer after this text.")
    ] = None,
    choices: Annotated[
        Path | None, Option(metavar="FILE", help="An answer is one of the lines of this file.")
    ] = None,
    regex: Annotated[
        str | None, Option(metavar="PATTERN", help="An answer matches this regular expression.")
    ] = None,
    json_schema: Annotated[
        Path | None, Option(metavar="FILE", help="An answer is JSON of the schema in this file.")
    ] = None,
    grammar: Annotated[
        Path | None, Option(metavar="FILE", help="An answer is a text of this Lark grammar.")
    ] = None,
    prompt_lookup_num_tokens: Annotated[
        int | None, Option(metavar="N", help="Read repeated words so many tokens at once.")
    ] = None,
    assistant: Annotated[
        str | None,
        Option(
            metavar="MODEL",
            help="A smaller model with the same tokens, which guesses how a text goes on: the same"
            " text in fewer passes.",
        ),
    ] = None,
    seed: Annotated[int | None, Option(help="The seed of drawing.")] = None,
    other: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting of writing, such as penalty_alpha=0.6, top_h=0.4 or"
            " cache_implementation=static.",
        ),
    ] = None,
    language: Annotated[
        str | None,
        Option(metavar="CODE", help="What a Whisper hears, such as zh (default: it detects it)."),
    ] = None,
    speech_task: Annotated[
        str | None,
        Option(metavar="transcribe|translate", help="Of a Whisper: in its language or in English."),
    ] = None,
    return_timestamps: Annotated[
        bool | None,
        Option("--return-timestamps", help="Of a Whisper: segments with start and end in seconds."),
    ] = None,
    device: Device = "auto",
) -> Results:
    """Write text: continue a prompt, translate, summarize, describe, transcribe.

    An answer is a JSON line with `text` and `score`; with --stream, the text alone. Inputs without
    an answer have an `error`; the exit status is then 2, after all others are written.
    """
    from skillweave.config.names import printable
    from skillweave.config.reading import parse_json, parse_override, read_lines
    from skillweave.inference.answers import Writer
    from skillweave.inference.generating import open_writer
    from skillweave.inference.inputs import read_inputs, read_words
    from skillweave.inference.subtitles import SUFFIXES, SubtitleWriter
    from skillweave.inference.writing import PROMPT, writing_task

    def text(option: str, file: Path) -> str:
        return "\n".join(read_lines(file, option))

    lines = SubtitleWriter(out) if out and out.suffix in SUFFIXES else None
    given = {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "num_return_sequences": num_return_sequences,
        "do_sample": do_sample,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "stop_strings": stop_strings or None,
        "choices": choices and [line for line in read_lines(choices, "--choices") if line],
        "regex": regex,
        "json_schema": json_schema and parse_json(text("--json-schema", json_schema), json_schema),
        "grammar": grammar and text("--grammar", grammar),
        "prompt_lookup_num_tokens": prompt_lookup_num_tokens,
        "seed": seed,
        "language": language,
        "speech_task": speech_task,
        "return_timestamps": return_timestamps,
    }
    words = inputs or []
    if input and words:
        raise sw.ConfigError(f"give inputs such as {words[0]} or --input {input}, not both")
    if stream and (input or out or len(words) != 1):
        raise sw.ConfigError("--stream shows the answer for one input; give it, without --input")
    require_writable(out)
    lines = lines or Writer(out, input)
    settings = {name: value for name, value in given.items() if value is not None}
    for name, value in map(parse_override, other or ()):
        if settings.setdefault(name, value) != value:
            raise sw.ConfigError(f"{name} is given twice, with different values")
    helper = open_predictor(assistant, device) if assistant else None
    predictor = open_predictor(model, device)
    if isinstance(lines, SubtitleWriter):
        lines.require_speech(writing_task(predictor, task))
        settings["return_timestamps"] = True
    writer = open_writer(predictor, task, settings, helper)
    fields = writer.fields
    columns = writer.task.columns
    rows = read_inputs(input, fields, columns, [PROMPT]) if input else read_words(words, fields)
    if stream:
        (row,) = rows
        pieces = []
        with results_shown():
            for piece in writer.stream(row):
                print(printable(piece), end="", flush=True)
                pieces.append(piece)
            print()
        return {"text": "".join(pieces)}
    _tell_skipped(input, rows)
    if isinstance(lines, SubtitleWriter) and len(rows) != 1:
        raise sw.ConfigError(
            f"{out}: holds the subtitles of one recording, and {len(rows)} are given; give one, or"
            " write a .jsonl file"
        )
    failed = 0
    with results_shown(), lines:
        for shown, answers in zip(rows.shown, writer.write(rows), strict=True):
            for answer in answers:
                lines.write(shown, answer)
            failed += any("error" in answer for answer in answers)
    return _answered(failed, len(rows), out)


def features(
    model: SavedModel,
    *,
    task: Task,
    input: Annotated[str, Option(metavar="FILE", help="A .jsonl, .csv, .tsv or .parquet file.")],
    out: Annotated[
        Path,
        Option(
            metavar="FILE",
            help=".npy, or .jsonl or .parquet with the columns of the input.",
        ),
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
) -> Results:
    """Write a vector for each row of a file.

    With .jsonl and .parquet, rows without a vector have an `error`; the exit status is then 2.
    """
    import numpy as np

    from skillweave.data.processors import BadInput
    from skillweave.inference.answers import Writer
    from skillweave.inference.inputs import read_inputs
    from skillweave.inference.whitening import Whitening
    from skillweave.storage import replacing

    require_writable(out)
    writer = None if out.suffix == ".npy" else Writer(out, input)
    predictor = open_predictor(model, device)
    field = predictor.query_field(task)
    columns = predictor.model.config.tasks[task].columns
    given = read_inputs(input, [field], columns)
    _tell_skipped(input, given)
    if writer is not None and whiten is None:
        failed = 0
        with writer:
            encoded = _encoded(predictor, task, field, given)
            for row, vector in zip(given.shown, encoded, strict=True):
                broken = isinstance(vector, BadInput)
                answer = {"error": str(vector)} if broken else {"vector": vector.tolist()}
                writer.write(row, answer)
                failed += broken
        print(f"{out}: {len(given):,} rows")
        return _answered(failed, len(given), out)
    vectors = _vectors(predictor, task, field, given)
    if whiten is not None:
        others = read_inputs(fit, [field], columns) if fit else None
        fitted = vectors if others is None else _vectors(predictor, task, field, others)
        vectors = Whitening.fit(fitted, whiten)(vectors)
    if writer is None:
        with replacing(out) as partial, partial.open("wb") as file:
            np.save(file, vectors)
    else:
        with writer:
            for row, vector in zip(given.shown, vectors.tolist(), strict=True):
                writer.write(row, {"vector": vector})
    print(f"{out}: {len(vectors):,} vectors of {vectors.shape[1]}")
    return _answered(0, len(vectors), out)


def _tell_skipped(file: str | None, given: Inputs) -> None:
    """Report on standard error how many rows were skipped."""
    from skillweave.config.names import printable

    if given.skipped:
        print(printable(f"{file}: {given.skipped}"), file=sys.stderr)


def _encoded(
    predictor: sw.Predictor, task: str, field: str, given: Inputs
) -> Iterator[Vectors | BadInput]:
    """The vector of each row, or why it is broken."""
    modality = field if field in ("image", "sound", "video", "code") else "text"
    return predictor.encode_each(task, modality, (row[field] for row in given))


def _vectors(predictor: sw.Predictor, task: str, field: str, given: Inputs) -> Vectors:
    """The vectors of all rows. Raises BadInput (naming the row) for a broken one."""
    import numpy as np

    from skillweave.data.processors import BadInput

    vectors = []
    for row, vector in zip(given, _encoded(predictor, task, field, given), strict=True):
        if isinstance(vector, BadInput):
            raise BadInput(f"{row['key']}: {vector}")
        vectors.append(vector)
    return np.stack(vectors)

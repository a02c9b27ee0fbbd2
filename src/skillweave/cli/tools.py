"""What the command line's commands over rows of files do, and its tools: conversion, means of
models, vocabularies."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.progress import Progress

from skillweave.cli.commands import say, unused_folder, write_whole
from skillweave.config import ConfigError
from skillweave.config.streams import TokenizerConfig
from skillweave.data.processors import BadInput, train_tokenizer
from skillweave.data.sharding import Plan, shard
from skillweave.data.sources import open_rows
from skillweave.inference.loading import encode, load, open_run
from skillweave.inference.predict import fields_given, predict, read_rows, read_words, write_rows
from skillweave.inference.whitening import Vectors, Whitening
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.surgery.average import average, checkpoints_of
from skillweave.surgery.vocabulary import extend
from skillweave.tasks.build import caption_of
from skillweave.tasks.labels import flat
from skillweave.tasks.task import Row


def run_predict(options: argparse.Namespace) -> None:
    """Answer for files, texts or the rows of a file."""
    if options.k < 1:
        raise ConfigError(f"--k {options.k}: at least 1")
    if options.input and options.inputs:
        raise ConfigError(
            f"give inputs such as {options.inputs[0]} or --input {options.input}, not both"
        )
    model, recipe = open_run(options.folder)
    if options.input:
        rows, own = _rows(recipe, options.task, options.input)
    else:
        rows = read_words(fields_given(recipe, options.task), options.inputs)
        own = [{"input": word} for word in options.inputs]
    answers = predict(model, recipe, options.task, rows, options.k)
    if options.out:
        write_rows(options.out, own, answers)
        return
    for row, answer in zip(own, answers, strict=True):
        print(json.dumps({**row, **answer}, ensure_ascii=False, default=str), flush=True)


def _rows(recipe: RecipeConfig, task: str, file: str) -> tuple[list[Row], list[Row]]:
    """Those of `read_rows`; a line on standard error where some were left out."""
    rows, own, left_out = read_rows(recipe, task, file)
    if left_out:
        print(f"{file}: {left_out}", file=sys.stderr)
    return rows, own


def run_convert(options: argparse.Namespace) -> None:
    """Convert a model folder, from Hugging Face's form or to it, by what it holds, or one of
    TencentPretrain's checkpoints."""
    from skillweave.interop.huggingface import convert_folder
    from skillweave.interop.tencentpretrain.weights import from_tencent

    out = unused_folder(options.out)
    if not options.config:
        if Path(options.model).is_file():
            raise ConfigError(
                f"{options.model}: a file; a checkpoint of TencentPretrain's needs --config"
                " FILE.json too"
            )
        say(convert_folder(options.model, out, options.family))
        return
    model = from_tencent(Path(options.model), ModelConfig.from_file(options.config))
    model.save_pretrained(out)
    say(
        f"{out} is written: {model.count_parameters():,} parameters, task"
        f" {next(iter(model.config.tasks))}"
    )


def run_average(options: argparse.Namespace) -> None:
    """Write the mean of models, or of a run's checkpoints."""
    out, folders = unused_folder(options.out), checkpoints_of(options.models)
    average(folders).save_pretrained(out)
    say(f"{out}: the mean of {', '.join(str(folder) for folder in folders)}")


def run_vocabulary(options: argparse.Namespace) -> None:
    """Train a tokeniser on texts, or give a model's more words."""
    if options.extend:
        _extend(options)
        return
    settings = TokenizerConfig(
        kind=options.kind, lowercase=not options.cased, min_frequency=options.min_frequency
    )
    if Path(options.out).suffix != ".json":
        raise ConfigError(
            f"{options.out}: a tokeniser is written as .json; name it under"
            " model.streams.text.tokenizer.path"
        )
    values = [value for path in options.texts for value in _column(path, options.column)]
    texts = list(flat(values))
    if empty := sum(not any(flat([value])) for value in values):
        say(f"{empty:,} rows hold no text in {options.column!r}; they are left out")
    tokenizer = train_tokenizer(texts, settings, options.size)
    write_whole(options.out, tokenizer.to_str(pretty=True))
    say(f"{options.out}: {tokenizer.get_vocab_size():,} pieces from {len(texts):,} texts")


def _column(path: str, name: str) -> list[object]:
    table = open_rows(path)
    return table.column(table.find(name, "--column"))


def _extend(options: argparse.Namespace) -> None:
    """Words are lines of the files."""
    out, model = unused_folder(options.out), load(options.extend)
    lines = [line for path in options.texts for line in Path(path).read_text("utf-8").splitlines()]
    larger = extend(model, lines)
    larger.save_pretrained(out)
    before, after = (
        m.config.streams.text.vocabulary if m.config.streams.text else 0 for m in (model, larger)
    )
    say(
        f"{out}: {before:,} pieces became {after:,}; start from it, or train on, to learn what the"
        " new ones mean"
    )


def run_shard(options: argparse.Namespace) -> None:
    """Cut texts into shards of wordpieces."""
    for name in ("rows", "workers"):
        if getattr(options, name) < (least := int(name == "rows")):
            raise ConfigError(f"--{name} {getattr(options, name)}: at least {least}")
    steps = shard(
        Plan(options.source, options.column, options.tokenizer, options.out, options.rows),
        options.workers,
    )
    with Progress(transient=True) as progress:
        bar = progress.add_task("shards")
        for done in steps:
            progress.update(bar, completed=done.shards, total=done.total)
    if done.empty:
        say(
            f"{done.empty:,} rows hold no text in {options.column!r}; tasks will skip and list them"
        )
    recipe = f"data: {{path: {options.out}/*.arrow}}, tokenizer: {{path: {options.out}}}"
    say(f"{options.out}: {done.total:,} shards; in a recipe {recipe}")


def run_features(options: argparse.Namespace) -> None:
    """Write the vectors of a file's rows, whitened if wanted."""
    model, recipe = open_run(options.folder)
    field = fields_given(recipe, options.task)[0]
    rows, own = _rows(recipe, options.task, options.input)
    vectors = _encode(model, options.task, field, rows)
    if options.whiten is not None:
        fitted = (
            _encode(model, options.task, field, _rows(recipe, options.task, options.fit)[0])
            if options.fit
            else vectors
        )
        vectors = Whitening.fit(fitted, options.whiten)(vectors)
    if Path(options.out).suffix == ".npy":
        np.save(options.out, vectors)
    else:
        write_rows(options.out, own, [{"vector": vector} for vector in vectors.tolist()])
    say(f"{options.out}: {len(vectors):,} vectors of {vectors.shape[1]}")


def _encode(model: Model, task: str, field: str, rows: list) -> Vectors:
    if field in ("image", "sound", "video", "code"):
        return encode(model, task, **{field: [row[field] for row in rows]})
    return encode(model, task, text=[_text(row, field) for row in rows])


def _text(row: Row, field: str) -> str:
    try:
        return caption_of(row, field)
    except BadInput as error:
        raise BadInput(f"{row['key']}: {error}") from None

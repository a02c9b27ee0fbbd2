"""What the command line's commands do once their arguments are read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from skillweave.analysis.advice import advise, undecided
from skillweave.analysis.experts import Use
from skillweave.analysis.inspection import inspect_config, inspect_folder, inspect_recipe
from skillweave.analysis.interference import interference
from skillweave.analysis.sampled_batches import draw_batches
from skillweave.config import ConfigError
from skillweave.config.encoder import SparseConfig
from skillweave.evaluation.agreement import SAME, comparison_batches, differences
from skillweave.evaluation.evaluator import measure
from skillweave.evaluation.zero_shot import read_tasks, with_unseen
from skillweave.inference.api import RECIPE_FILE, load, open_run
from skillweave.inference.predict import hit_row
from skillweave.model.config import ModelConfig
from skillweave.model.folders import model_folder
from skillweave.model.presets import find_model, presets
from skillweave.recipe import find_recipe, read_recipe
from skillweave.reporting.console import (
    console,
    cross_validation_table,
    evaluation_table,
    expert_tables,
    inspection_tables,
    interference_tables,
    progress,
    proposal_text,
    provenance_table,
    search_table,
)
from skillweave.reporting.report import INTERFERENCE_FILE, REPORT_FILE, read_json, write_report
from skillweave.retrieval.files import save_hits
from skillweave.retrieval.index import build_index, query, searchable, task_for
from skillweave.surgery.carve import REPORT_FILE as CARVE_FILE
from skillweave.surgery.carve import carve_lines, carve_run
from skillweave.surgery.provenance import tabulate
from skillweave.surgery.upcycle import copy_table, upcycle
from skillweave.surgery.weave import weave
from skillweave.training import train
from skillweave.training.cross_validation import cross_validate

EVALUATION_FILE = "evaluation.json"
WEAVE_FILE = "weave.json"
QUICKSTART = "quickstart"


def run_quickstart(options: argparse.Namespace) -> None:
    """Train the packaged recipe, measure it, and say what to try next. Raises ConfigError for a run
    begun before."""
    recipe = read_recipe(find_recipe(QUICKSTART), options.overrides)
    folder = recipe.folder
    if (folder / EVALUATION_FILE).is_file():
        say(f"{folder} is complete; {folder / REPORT_FILE} shows it.")
        say(
            "To train again, remove the folder or choose another: skillweave quickstart"
            f" output={folder}-2"
        )
    else:
        if (folder / RECIPE_FILE).is_file() and not options.resume:
            again = " ".join(["skillweave", QUICKSTART, *options.overrides, "--resume"])
            raise ConfigError(f"{folder} was begun but not finished; go on with: {again}")
        train(recipe, resume=options.resume)
        measure_run(folder)
    say("\nNext:")
    say(f'  skillweave search {folder} "一个笑脸" --in image')
    say(f"  skillweave inspect {folder}")
    say(f"  skillweave evaluate {folder} --json figures.json")


def run_train(options: argparse.Namespace) -> None:
    """Train a recipe, once or for each fold of a cross-validation."""
    recipe = read_recipe(find_recipe(options.recipe), options.overrides, options.fraction)
    if options.folds is not None:
        found = cross_validate(recipe, options.folds, resume=options.resume)
        console().print(cross_validation_table(found, f"{recipe.name} · {options.folds} folds"))
        write_json(options.json, found)
        return
    folder = train(recipe, resume=options.resume)
    say(f"\n{folder} is trained. Next:\n  skillweave evaluate {folder}")


def run_evaluate(options: argparse.Namespace) -> None:
    """Measure a run; all tasks on the test split also give evaluation.json and the report page."""
    tables = measure_run(
        options.folder,
        options.split,
        options.tasks,
        options.bootstrap,
        options.compare,
        options.zero_shot,
    )
    write_json(options.json, tables)


def measure_run(
    path: str | Path,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    bootstrap: int = 1000,
    compare: Sequence[str] = (),
    zero_shot: str | None = None,
) -> dict[str, Any]:
    """Measure, print the table and, for all of the run's own tasks on the test split, write
    evaluation.json and report.html.

    `zero_shot`: a recipe whose tasks are measured instead.
    """
    model, recipe = open_run(path)
    if zero_shot:
        model, recipe = with_unseen(model, recipe, read_tasks(find_recipe(zero_shot)), split)
    with progress() as step:
        measured = measure(model, recipe, split, tasks, bootstrap, step)
    tables = {name: m.table for name, m in measured.items()}
    console().print(evaluation_table(tables, f"{recipe.name} · {split}"))
    if split == "test" and not (tasks or zero_shot):
        write_json(recipe.folder / EVALUATION_FILE, tables)
        say(f"report: {write_report(recipe.folder, model, recipe, measured, compare)}")
    return tables


def run_index(options: argparse.Namespace) -> None:
    """Build the index of every retrieval task's modalities."""
    model, recipe = open_run(options.folder)
    for task, modalities in searchable(model, recipe).items():
        for modality in modalities:
            with progress() as step:
                index = build_index(model, recipe, modality, task=task, progress=step)
            left_out = f", {len(index.skipped)} skipped" if index.skipped else ""
            say(f"{task} · {modality}: {len(index.entries):,} samples{left_out}")


def run_search(options: argparse.Namespace) -> None:
    """Find samples and show, list or save them."""
    if options.k < 1:
        raise ConfigError(f"--k {options.k}: at least 1")
    given = {
        name: getattr(options, name)
        for name in ("image", "sound", "video", "code")
        if getattr(options, name)
    }
    if options.query is not None:
        given["text"] = options.query
    if len(given) != 1:
        raise ConfigError(
            "give one thing to look for: a text, or one of --image, --sound, --video and --code"
        )
    asked, word = next(iter(given.items()))
    value = word if asked == "text" else Path(word)
    if isinstance(value, Path) and not value.is_file():
        raise ConfigError(f"{value}: no such file")
    model, recipe = open_run(options.folder)
    task = task_for(model, recipe, options.within, asked)
    with progress() as step:
        index = build_index(model, recipe, options.within, task=task, progress=step)
    hits = query(model, index, options.k, **{asked: value})
    rows = [hit_row(hit) for hit in hits]
    if options.out:
        for row, file in zip(rows, save_hits(recipe, index, hits, options.out), strict=True):
            row["file"] = str(file)
    console().print(search_table(rows, f"{options.within} for {word}"))
    write_json(options.json, rows)


def run_inspect(options: argparse.Namespace) -> None:
    """Show components, skills, parameters and, of a run, which experts each task uses."""
    if Path(options.target).is_dir():
        if options.overrides:
            raise ConfigError(
                f"{options.target} is trained already; settings such as {options.overrides[0]} need"
                " a recipe"
            )
        found = inspect_folder(model_folder(options.target))
        tables = read_json(Path(options.target) / EVALUATION_FILE)
        found["routing"] += [row for table in tables.values() for row in table.get("experts", [])]
    elif (file := find_model(options.target)) is not None:
        if options.overrides:
            raise ConfigError(
                f"{options.target} is no recipe; settings such as {options.overrides[0]} need one"
            )
        found = inspect_config(ModelConfig.from_file(file))
    else:
        found = inspect_recipe(
            read_recipe(find_recipe(options.target, presets()), options.overrides)
        )
    for table in inspection_tables(found):
        console().print(table)
    if sizes := found.get("bytes"):
        say(
            f"on disk: weights {sizes['weights'] / 1e6:,.1f} MB, model folder"
            f" {sizes['folder'] / 1e6:,.1f} MB"
        )
    uses = [Use(**row) for row in found.get("routing", [])]
    for table in expert_tables(uses):
        console().print(table)
    if unknown := set(found.get("undecided", [])) - {use.place for use in uses}:
        places = ", ".join(sorted(unknown))
        say(
            f"experts of {places}: the data decide; skillweave evaluate {options.target} counts"
            " what they do"
        )
    write_json(options.json, found)


def run_upcycle(options: argparse.Namespace) -> None:
    """Make a sparse model of a dense one, compare their answers, and only then write it."""
    out = unused_folder(options.out or f"{options.model.rstrip('/')}-upcycled")
    sparse, model = read_sparse(options.sparse), load(options.model)
    batches, what = comparison_batches(model, options.model)
    result = upcycle(model, sparse, options.noise, options.seed)
    rows = copy_table(result, model)
    console().print(provenance_table(rows, f"{out} from {options.model}"))
    apart = differences(model, result, batches)
    say(
        f"compared on {what}: answers differ by at most {max(apart.values()):.1e} of the largest"
        " logit"
    )
    if not options.noise and not all(difference <= SAME for difference in apart.values()):
        raise ConfigError(
            f"that is more than rounding ({SAME:.0e}), so nothing was written; a place that was"
            " sparse has another route"
        )
    result.save_pretrained(out)
    write_json(options.json, [asdict(row) for row in rows])
    recipe = options.sparse
    if inline(recipe):
        own = Path(options.model) / RECIPE_FILE
        recipe = f"{own if own.is_file() else 'RECIPE'} 'model.encoder.sparse={options.sparse}'"
    say(
        f"{out} is written. Next:\n  skillweave train {recipe} start_from={out}"
        f" output={out}-trained"
    )


def run_weave(options: argparse.Namespace) -> None:
    """Make a recipe's model from models of single skills."""
    out = unused_folder(options.out)
    pairs = [text.partition("=") for text in options.inputs]
    for modality, equals, path in pairs:
        if not (equals and path) or [m for m, _, _ in pairs].count(modality) > 1:
            raise ConfigError(
                f"{modality}{equals}{path}: give each model once, as MODALITY=MODEL, such as"
                " text=runs/texts"
            )
    recipe = read_recipe(find_recipe(options.recipe))
    woven = weave(recipe, {modality: path for modality, _, path in pairs}, options.shared)
    rows = tabulate(woven.origins, woven.model.state_dict())
    console().print(provenance_table(rows, f"{out} from {', '.join(options.inputs)}"))
    woven.model.save_pretrained(out)
    for file in (out / WEAVE_FILE, options.json):
        write_json(file, [asdict(row) for row in rows])
    say(
        f"{out} is written. Next:\n  skillweave train {options.recipe} start_from={out}"
        f" output={out}-trained"
    )


def run_carve(options: argparse.Namespace) -> None:
    """Make a task's slice a dense model, with each pass for other programs, proved equal before it
    is written."""
    out = unused_folder(options.out or f"{options.folder.rstrip('/')}-{options.task}")
    about = carve_run(options.folder, options.task, out, options.weights, not options.no_towers)
    for line in carve_lines(about):
        say(line)
    write_json(options.json, about)
    say(f"{out} is written; {out / CARVE_FILE} says the same. Next:\n  skillweave evaluate {out}")


def read_sparse(text: str) -> SparseConfig:
    """The sparse places that a command's `--sparse` names: a mapping, or those of a recipe."""
    if not inline(text):
        return read_recipe(find_recipe(text)).model.encoder.sparse
    try:
        return SparseConfig.parse(yaml.safe_load(text), "--sparse")
    except yaml.YAMLError as error:
        raise ConfigError(
            "--sparse: neither a mapping such as {feed_forward: {route: token}} nor a recipe:"
            f" {error}"
        ) from None


def inline(sparse: str) -> bool:
    """Whether `--sparse` is a mapping, not a recipe."""
    return sparse.lstrip().startswith("{")


def unused_folder(path: str) -> Path:
    """A folder to write into. Raises ConfigError when something is there."""
    folder = Path(path)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; choose another with --out, or remove it")
    return folder


def run_interference(options: argparse.Namespace) -> None:
    """Measure what tasks do to each other on real batches; print, draw and, with --advise,
    propose."""
    # these import matplotlib
    from skillweave.reporting.figure import write_svg
    from skillweave.reporting.plots import interference_heat_map

    model, recipe = open_run(options.folder)
    batches = draw_batches(
        model, recipe, options.batches, options.split, options.tasks, options.seed
    )
    with progress() as step:
        table = interference(
            model, batches, options.blocks, resamples=options.bootstrap, progress=step
        )
    proposals = advise(table, recipe) if options.advise else []
    found = {
        "split": options.split,
        "seed": options.seed,
        **table.to_json(),
        "advice": [p.to_json() for p in proposals],
    }
    for shown in interference_tables(found):
        console().print(shown)
    for note in table.notes:
        say(note)
    if options.advise:
        for text in map(proposal_text, proposals):
            say(text)
        say(
            undecided(table)
            or ("" if proposals else "no proposal: no figure is clear enough in either direction")
        )
    figures = recipe.folder / INTERFERENCE_FILE
    picture = Path(options.out or figures.with_suffix(".svg"))
    write_svg(interference_heat_map(found), picture)
    write_json(figures, found)
    write_json(options.json, found)
    say(f"heat map: {picture}; figures: {figures}")


def say(text: str) -> None:
    """A line on the screen, as it is."""
    console().print(text, highlight=False, markup=False, soft_wrap=True)


def write_json(path: str | Path | None, content: Any) -> None:
    """Write a table as JSON; nothing without a path. Raises OSError when it cannot be written."""
    if path is not None:
        write_whole(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_whole(path: str | Path, text: str) -> None:
    """Write a file so that it is there whole or not at all. Raises OSError when it cannot be
    written."""
    partial = Path(f"{path}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)

"""Commands that measure: `evaluate`, `rate`, `ratings`, `interference`, `inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import (
    Data,
    Device,
    Resamples,
    Results,
    Run,
    SavedModel,
    Seed,
    Settings,
    Split,
    Tasks,
    open_run,
    require_writable,
)


def rate(
    systems: Annotated[
        list[str],
        Argument(
            metavar="NAME=FILE NAME=FILE",
            help="Two systems and the tables of their answers, such as generate --out writes.",
        ),
    ],
    *,
    out: Annotated[Path, Option(metavar="FILE", help="The page.")] = Path("rating.html"),
    show: Annotated[
        str | None,
        Option(
            metavar="COLUMN",
            help="What the texts are about: texts or paths of images (default: the first column).",
        ),
    ] = None,
    answer: Annotated[str, Option(metavar="COLUMN", help="The column of the texts.")] = "answer",
    samples: Annotated[
        int | None, Option(metavar="N", min=1, help="Draw so many pairs (default: all).")
    ] = None,
    seed: Seed = 0,
) -> Results:
    """Write a page on which people rate the texts of two systems.

    The page does not say who wrote which text. Its key, NAME.key.json, does; keep it to yourself.
    """
    from skillweave.reporting.rating_page import key_file, write_rating_page

    named = {name: path for name, given, path in (one.partition("=") for one in systems) if given}
    if len(named) != len(systems):
        raise sw.ConfigError(f"{' '.join(systems)}: write two systems as NAME=FILE NAME=FILE")
    require_writable(out)
    key = write_rating_page(named, out, show, answer, samples, seed)
    print(f"{out}: {len(key.items)} pairs; send it to the raters. Its key is {key_file(out)}; then")
    print(f"  skillweave ratings {key_file(out)} ratings-*.json")
    return {"page": str(out), "key": str(key_file(out)), "pairs": len(key.items)}


def ratings(
    key: Annotated[Path, Argument(metavar="KEY", help="The .key.json file of the page.")],
    files: Annotated[list[Path], Argument(metavar="FILE...", help="What the raters saved.")],
    *,
    bootstrap: Annotated[
        int, Option(metavar="N", min=1, help="Resamples for the confidence intervals.")
    ] = 1000,
) -> Results:
    """Compare two systems by what people said on a rating page."""
    from skillweave.evaluation.ratings import RatingKey, Ratings, score_ratings
    from skillweave.reporting.console import rating_tables
    from skillweave.reporting.terminal import console

    read = RatingKey.read(key)
    found = score_ratings(read, [Ratings.read(file, read) for file in files], bootstrap)
    for table in rating_tables(found):
        console().print(table)
    return found


def evaluate(
    run: SavedModel,
    split: Split = "test",
    tasks: Tasks = None,
    zero_shot: Annotated[
        str | None,
        Option(
            metavar="RECIPE",
            help="Evaluate the tasks of this recipe instead, on which the run was not trained.",
        ),
    ] = None,
    bootstrap: Resamples = 1000,
    compare: Annotated[
        list[str] | None,
        Option(metavar="RUN", help="Draw the learning curves of these runs as well."),
    ] = None,
    data: Data = None,
    device: Device = "auto",
) -> Results:
    """Evaluate a model on unseen samples.

    Without --split, --tasks and --zero-shot, write evaluation.json and the report page into the
    run folder.
    """
    others = compare or ()
    return evaluate_run(run, split, tasks, zero_shot, bootstrap, others, device, data)


def evaluate_run(
    run: str,
    split: Split = "test",
    tasks: Sequence[str] | None = None,
    zero_shot: str | None = None,
    bootstrap: int = 1000,
    compare: Sequence[str] = (),
    device: str = "auto",
    data: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Evaluate a run as `evaluate` does, and return each task's table."""
    from skillweave.analysis.experts import ExpertCounter
    from skillweave.evaluation.evaluator import measure
    from skillweave.evaluation.zero_shot import open_unseen
    from skillweave.recipe import find_recipe
    from skillweave.reporting.card import write_card
    from skillweave.reporting.console import evaluation_table
    from skillweave.reporting.logs import EVALUATION_FILE
    from skillweave.reporting.report import write_report
    from skillweave.reporting.terminal import console, progress
    from skillweave.storage import write_json

    if zero_shot and data:
        raise sw.ConfigError("--zero-shot names the data of its tasks; leave --data out")
    if zero_shot:
        model, recipe = open_unseen(run, find_recipe(zero_shot), split, device)
    else:
        model, recipe = open_run(run, device, data, split)
    recipe.require_unchanged(split, tasks)
    experts = ExpertCounter(model)
    with progress() as step:
        measured = measure(model, recipe, split, tasks, bootstrap, step, [experts])
    for name, one in measured.items():
        if keys := one.dataset.repeated_keys:
            told = f"{len(keys):,} keys name several rows, such as {keys[0]!r}; every row counts"
            print(f"note: {name}: {told}")
    tables = {name: m.table for name, m in measured.items()}
    settings = recipe.recipe
    console().print(evaluation_table(tables, f"{settings.name} · {split}"))
    if split == "test" and not (tasks or zero_shot) and (settings.is_pinned or not data):
        folder = settings.folder
        write_json(folder / EVALUATION_FILE, tables)
        page = write_report(folder, model, settings, measured, compare, experts.uses)
        write_card(folder)
        print(f"report: {page}")
    return tables


def interference(
    run: Run,
    batches: Annotated[int, Option(metavar="N", help="Batches of each task.")] = 100,
    tasks: Tasks = None,
    blocks: Annotated[
        list[str] | None,
        Option(
            metavar="BLOCK",
            help="feed_forward (default) or attention of two layers, the number of a layer,"
            " counted from 0, or the path of a module.",
        ),
    ] = None,
    split: Split = "train",
    seed: Seed = 0,
    bootstrap: Resamples = 1000,
    advise: Annotated[
        bool, Option("--advise", help="Propose changes of the recipe, each with its figure.")
    ] = False,
    out: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="The heat map (default: RUN/interference.svg).",
        ),
    ] = None,
    data: Data = None,
    device: Device = "auto",
) -> Results:
    """Measure how much the tasks of a run help or harm each other.

    Print a table, and write a heat map and the results into the run folder.
    """
    from skillweave.analysis import advice
    from skillweave.analysis.sampled_batches import sample_batches
    from skillweave.reporting.console import interference_tables, proposal_text
    from skillweave.reporting.figure import write_svg
    from skillweave.reporting.plots import interference_heat_map
    from skillweave.reporting.report import INTERFERENCE_FILE
    from skillweave.reporting.terminal import console, progress
    from skillweave.storage import write_json

    require_writable(out)
    model, ready = open_run(run, device, data, split)
    ready.require_unchanged(split, tasks)
    recipe = ready.recipe
    sampled = sample_batches(ready, batches, split, tasks or (), seed)
    with progress() as step:
        table = sw.interference(model, sampled, blocks or (), resamples=bootstrap, progress=step)
    proposals = advice.advise(table, recipe) if advise else []
    found = {
        "split": split,
        "seed": seed,
        **table.to_json(),
        "advice": [proposal.to_json() for proposal in proposals],
    }
    for shown in interference_tables(found):
        console().print(shown)
    lines = [*table.notes, *map(proposal_text, proposals)]
    if advise:
        nothing = "" if proposals else "no proposal: no effect is clear in either direction"
        lines.append(advice.undecided(table) or nothing)
    for line in filter(None, lines):
        print(line)
    figures = recipe.folder / INTERFERENCE_FILE
    picture = out or figures.with_suffix(".svg")
    write_svg(interference_heat_map(found), picture)
    write_json(figures, found)
    print(f"heat map: {picture}; figures: {figures}")
    return found


def inspect(
    target: Annotated[
        str,
        Argument(
            metavar="RUN-or-RECIPE",
            help="A run or model folder, a YAML file, the name of a recipe or preset (bert-base),"
            " or the configuration of a model as .json.",
        ),
    ],
    settings: Settings = None,
) -> Results:
    """Show the components, skills and parameters per task of a model.

    For a run, show also which experts each task uses.
    """
    from skillweave.analysis.experts import Use
    from skillweave.reporting.console import expert_tables, inspection_tables
    from skillweave.reporting.terminal import console

    found = _describe(target, settings or ())
    for table in inspection_tables(found):
        console().print(table)
    if sizes := found.get("bytes"):
        print(
            f"on disk: weights {sizes['weights'] / 1e6:,.1f} MB, model folder"
            f" {sizes['folder'] / 1e6:,.1f} MB"
        )
    uses = [Use(**row) for row in found.get("routing", [])]
    for table in expert_tables(uses):
        console().print(table)
    if unknown := set(found.get("data_dependent", [])) - {use.where for use in uses}:
        print(
            f"experts of {', '.join(sorted(unknown))}: the data decide; skillweave evaluate"
            f" {target} counts which are used"
        )
    return found


def _describe(target: str, settings: Sequence[str]) -> dict[str, Any]:
    """What `inspect` shows of a folder, configuration or recipe."""
    from skillweave.analysis.experts import Use
    from skillweave.analysis.inspection import inspect_config, inspect_folder, inspect_recipe
    from skillweave.config.errors import reading
    from skillweave.model.folders import model_folder, packaged_models
    from skillweave.model.presets import find_model, presets
    from skillweave.recipe import find_recipe
    from skillweave.reporting.logs import EVALUATION_FILE
    from skillweave.storage import read_json

    file = find_model(target)
    is_model = Path(target).is_dir() or target in packaged_models()
    if not is_model and file is None:
        return inspect_recipe(sw.read_recipe(find_recipe(target, presets()), settings))
    if settings:
        raise sw.ConfigError(
            f"{target} is not a recipe; only a recipe takes settings such as {settings[0]}"
        )
    if file is not None:
        return inspect_config(sw.ModelConfig.from_file(file))
    found = inspect_folder(model_folder(target))
    file = Path(target) / EVALUATION_FILE
    with reading(file, "figures of `evaluate`; run it again"):
        rows = [row for table in read_json(file).values() for row in table.get("experts", [])]
        found["routing"] += [Use(**row)._asdict() for row in rows]
    return found

"""Commands that search: `index`, `search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import Device, Json, Run, open_model, write_json


def index(run: Run, device: Device = "auto") -> None:
    """Embed all samples of a run once, for search."""
    from skillweave.reporting.console import progress
    from skillweave.retrieval.index import build_index, searchable

    model, recipe = open_model(run, device)
    for task, modalities in searchable(model, recipe).items():
        for modality in modalities:
            with progress() as step:
                built = build_index(model, recipe, modality, task=task, progress=step)
            skipped = f", {len(built.skipped)} skipped" if built.skipped else ""
            print(f"{task} · {modality}: {len(built.entries):,} samples{skipped}", flush=True)


def _example(modality: str) -> object:
    return Option(metavar="FILE", help=f"Look for what resembles this {modality} instead.")


def search(
    run: Run,
    text: Annotated[
        str | None, Argument(metavar="TEXT", help="What to look for.", show_default=False)
    ] = None,
    image: Annotated[Path | None, _example("image")] = None,
    sound: Annotated[Path | None, _example("sound")] = None,
    video: Annotated[Path | None, _example("video")] = None,
    code: Annotated[Path | None, _example("code")] = None,
    within: Annotated[
        str,
        Option("--in", metavar="MODALITY", help="What to search: image, video, code or text."),
    ] = "image",
    k: Annotated[int, Option(min=1, help="The number of samples to find.")] = 5,
    out: Annotated[
        Path | None, Option(metavar="DIR", help="Save the files found to this folder.")
    ] = None,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Find samples of a run by a text or a file."""
    from skillweave.inference.predict import hit_row
    from skillweave.reporting.console import console, hits_table, progress
    from skillweave.retrieval.files import save_hits
    from skillweave.retrieval.index import build_index, query, task_for

    options = {"text": text, "image": image, "sound": sound, "video": video, "code": code}
    given = {name: value for name, value in options.items() if value is not None}
    if len(given) != 1:
        raise sw.ConfigError(
            "give one thing to look for: a text, or one of --image, --sound, --video and --code"
        )
    ((asked, value),) = given.items()
    if isinstance(value, Path) and not value.is_file():
        raise sw.ConfigError(f"{value}: no such file")
    model, recipe = open_model(run, device)
    task = task_for(model, recipe, within, asked)
    with progress() as step:
        built = build_index(model, recipe, within, task=task, progress=step)
    hits = query(model, built, k, **given)
    rows = [hit_row(hit) for hit in hits]
    if out:
        for row, file in zip(rows, save_hits(recipe, built, hits, out), strict=True):
            row["file"] = str(file)
    console().print(hits_table(rows, f"{within} for {value}"))
    write_json(json, rows)

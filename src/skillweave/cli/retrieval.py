"""Commands that search: `index`, `search`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import (
    Device,
    Results,
    SavedModel,
    open_predictor,
    unused_folder,
)


def index(
    model: SavedModel,
    data: Annotated[
        str | None,
        Argument(
            metavar="DATA",
            help="A folder of files, a table or a file to embed instead of the data of the run.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Keep the index of DATA in this folder, a LanceDB database that grows: new keys"
            " are added, known ones replaced.",
        ),
    ] = None,
    modality: Annotated[
        str | None, Option(metavar="MODALITY", help="Of the items (default: all that DATA holds).")
    ] = None,
    delete: Annotated[
        list[str] | None, Option(metavar="KEY", help="Remove the items of these keys from --out.")
    ] = None,
    device: Device = "auto",
) -> Results:
    """Embed items once, for search: the data of a run, or your own.

    An index that was interrupted goes on where it was, and items whose content has not changed are
    not embedded again.
    """
    from skillweave.reporting.terminal import progress
    from skillweave.retrieval.index import Index, held, searchable
    from skillweave.retrieval.stored import open_index

    if out and data is None and not delete:
        raise sw.ConfigError("--out keeps an index of DATA; name them, or --delete KEY")
    if delete and not out:
        raise sw.ConfigError("--delete removes items from the index in --out DIR; name it")
    predictor = open_predictor(model, device)
    own = [(task, one) for task, fields in searchable(predictor).items() for one in fields]
    if not own:
        raise sw.ConfigError(f"{model}: the model has no retrieval task, so nothing is searched")
    found = own if data is None else held(predictor, data)
    if modality is not None and not (found := [one for one in found if one[1] == modality]):
        raise sw.ConfigError(f"no task of the model relates {modality} of these data to anything")
    rows = []
    for task, one in found:
        told = f"{task} · {one}"
        if delete and out:
            removed = Index.open(predictor, out, one, task).delete(*delete)
            print(f"{told}: {removed:,} removed", flush=True)
            rows.append({"task": task, "modality": one, "removed": removed})
        if data is None and out:
            continue
        with progress() as step:
            if out and data is not None:
                built = Index.build(predictor, data, one, task, step, out)
            else:
                built = open_index(predictor, model, task, one, data, step)
        skipped = f", {len(built.skipped)} skipped" if built.skipped else ""
        print(f"{told}: {len(built):,} items{skipped}", flush=True)
        counts = {"items": len(built), "skipped": len(built.skipped)}
        rows.append({"task": task, "modality": one, **counts})
    return rows


def _example(modality: str) -> object:
    return Option(metavar="FILE", help=f"Look for what resembles this {modality} instead.")


def search(
    model: SavedModel,
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
    data: Annotated[
        str | None,
        Option(
            metavar="DATA",
            help="A folder of files, a table or a file to search instead of the data of the run, or"
            " the folder of an index (index --out).",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        Option(
            metavar="CONDITION",
            help="Only items that meet it, such as year>=2020 or label=cat; all of several.",
        ),
    ] = None,
    words: Annotated[
        bool,
        Option("--words", help="Rank by the words of the captions as well, not by vectors alone."),
    ] = False,
    device: Device = "auto",
) -> Results:
    """Find items by a text or a file: in the data of a run, or in your own."""
    from skillweave.data.sources.base import FIELDS
    from skillweave.reporting.console import search_table
    from skillweave.reporting.terminal import console, progress
    from skillweave.retrieval.files import save_hits
    from skillweave.retrieval.filters import parse_filters
    from skillweave.retrieval.index import task_for
    from skillweave.retrieval.stored import open_index

    options = {"text": text, "image": image, "sound": sound, "video": video, "code": code}
    given = {name: value for name, value in options.items() if value is not None}
    if len(given) != 1:
        raise sw.ConfigError(
            "give one thing to look for: a text, or one of --image, --sound, --video and --code"
        )
    ((asked, value),) = given.items()
    if isinstance(value, Path) and not value.is_file():
        raise sw.ConfigError(f"{value}: no such file")
    if out:
        unused_folder(out)
    kind = FIELDS.get(Path(text or "").suffix[1:].lower(), "text")
    if kind in options and kind != "text" and os.path.isfile(text or ""):
        raise sw.ConfigError(f"{text} is a file; to look for what resembles it: --{kind} {text}")
    filters = parse_filters(where or ())
    if words and text is None:
        raise sw.ConfigError("--words ranks by the words of a text; give one")
    predictor = open_predictor(model, device)
    task = task_for(predictor, within, asked)
    with progress() as step:
        built = open_index(predictor, model, task, within, data, step)
    hits = built.search(k, filters, words, **given)
    rows = [hit.to_json() for hit in hits]
    if out:
        for row, file in zip(rows, save_hits(built, hits, out), strict=True):
            row["file"] = str(file)
    console().print(search_table(rows, f"{within} for {value}"))
    return rows

"""Commands for sharing models: `card`, `push`, `pull`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import Results, require_writable, results_shown, unused_folder

Folder = Annotated[str, Argument(metavar="MODEL", help="A run, a checkpoint or a model folder.")]


def card(
    model: Folder,
    *,
    out: Annotated[
        Path | None, Option(metavar="FILE", help="The file to write (default: print it).")
    ] = None,
    name: Annotated[str | None, Option(help="The title (default: the name of the run).")] = None,
) -> Results:
    """Write the model card of a model: tasks, parameters, data, figures, how to use it.

    What only you know, such as the licence, is marked TODO.
    """
    from skillweave.reporting.card import model_card
    from skillweave.storage import write_text

    require_writable(out)
    text = model_card(model, name)
    if out is None:
        with results_shown():
            print(text, end="")
    else:
        write_text(out, text)
        print(f"wrote {out}; fill in what is marked TODO ({text.count('TODO')})")
    return {"card": text, "out": out and str(out)}


def push(
    model: Folder,
    repo: Annotated[str, Argument(metavar="ORG/NAME", help="The model on the hub.")],
    *,
    public: Annotated[
        bool, Option("--public", help="Make a new model public (default: private).")
    ] = False,
    message: Annotated[str, Option(help="The message of the commit.")] = (
        "Upload a model of skillweave"
    ),
) -> Results:
    """Upload a model with its card to the Hugging Face hub."""
    import tempfile

    from skillweave.interop.hub import push as upload
    from skillweave.model.folders import model_folder
    from skillweave.reporting.card import CARD_FILE, write_card
    from skillweave.reporting.logs import EVALUATION_FILE

    folder = model_folder(model)
    with tempfile.TemporaryDirectory() as place:
        own = next((f for f in (Path(model), folder) if (f / CARD_FILE).is_file()), None)
        written = write_card(model, Path(place), repo) if own is None else own / CARD_FILE
        figures = Path(model) / EVALUATION_FILE
        further = {CARD_FILE: written}
        if figures.is_file():
            further[EVALUATION_FILE] = figures
        commit = upload(folder, repo, further, private=not public, message=message)
    print(f"pushed {repo}, commit {commit}. To load exactly this:")
    print(f'  sw.load("{repo}@{commit}")')
    return {"repo": repo, "commit": commit}


def pull(
    repo: Annotated[
        str, Argument(metavar="ORG/NAME[@REVISION]", help="A model of skillweave on the hub.")
    ],
    *,
    out: Annotated[
        str | None, Option(metavar="DIR", help="Copy it to this folder (default: the cache alone).")
    ] = None,
) -> Results:
    """Download a model of skillweave from the Hugging Face hub, and check it.

    A revision is a commit, a branch or a tag; all files are of one commit.
    """
    from skillweave.interop.hub import pull as download
    from skillweave.storage import replacing

    if out is not None:
        unused_folder(out)
    folder = download(repo)
    if out is not None:
        with replacing(Path(out)) as partial:
            shutil.copytree(folder, partial)
    place = out or str(folder)
    parameters = sw.load(place).count_parameters()
    print(f"{place}: {parameters:,} parameters; its checksums are right")
    return {"model": place, "parameters": parameters}

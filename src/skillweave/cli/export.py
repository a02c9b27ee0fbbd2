"""The command `export`: a model in the format of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

import skillweave as sw
from skillweave.cli.shared import Data, Results, SavedModel, open_run, unused_folder


def export(
    model: SavedModel,
    *,
    to: Annotated[str, Option(metavar="FORMAT", help="onnx, torch, int8, ctranslate2 or gguf.")],
    task: Annotated[
        str | None, Option(metavar="TASK", help="The task (default: the model's only one).")
    ] = None,
    out: Annotated[
        str | None, Option(metavar="DIR", help="The folder to write (default: MODEL-FORMAT).")
    ] = None,
    data: Data = None,
    samples: Annotated[
        int, Option(metavar="N", min=1, help="Samples on which both are compared.")
    ] = 64,
) -> Results:
    """Write a model for another program: ONNX, torch.export, CTranslate2, GGUF.

    The file is read back and compared with the model on real samples: those of the run, or of
    --data. Nothing is written unless the outputs are the same; of int8, the loss is stated.
    """
    from skillweave.evaluation.agreement import made_batch, real_batch
    from skillweave.reporting.formatting import export_lines
    from skillweave.surgery.formats import export_model

    folder = unused_folder(out or f"{Path(model).name}-{to}")
    try:
        opened, recipe = open_run(model, "cpu", data, "test")
    except sw.ConfigError:
        if data:
            raise
        opened, recipe = sw.load(model), None
    name = task or _only_task(opened)
    if recipe is None:
        batch, what = made_batch(opened, name), "made inputs: give real ones with --data TASK=PATH"
    else:
        batch, split = real_batch(recipe, name, samples)
        what = f"{len(batch)} {split} samples"
    about = export_model(opened, to, batch, folder, what)
    print(*export_lines(about), sep="\n")
    print(f"wrote {folder}; {folder / 'export.json'} says the same")
    return about


def _only_task(model: sw.Model) -> str:
    names = list(model.config.tasks)
    if len(names) != 1:
        raise sw.ConfigError(f"choose the task with --task: {', '.join(names)}")
    return names[0]

"""Load a model and encode raw inputs: what most programs need."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skillweave.batch import Batch, Example, Layout, Modality
from skillweave.config import ConfigError, choose
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput, Processor, build_processors
from skillweave.model.folders import CONFIG_FILE, model_folder
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig, read_recipe

RECIPE_FILE = "recipe.yaml"
"""A run's resolved recipe."""
BATCH = 64
"""Raw inputs encoded at once."""
BUCKET = 8
"""Lengths are padded to a multiple of it."""


def load(path: str | Path, tasks: str | Collection[str] | None = None) -> Model:
    """The model of a run (its best checkpoint) or of a model folder, ready for inference.

    `tasks`: read and hold no more than what these tasks activate; all experts of routes that look
    at the data belong to it. Raises ConfigError when there is no model or it never had a task,
    WeightsError when its weights do not fit.
    """
    return Model.from_pretrained(model_folder(path), tasks)


def with_tuning(model: Model, path: str | Path) -> Model:
    """The tuned model of a run or model folder on a base that is in memory already, whose weights
    it shares.

    So one base serves many tunings: prompts share all that they leave alone. Raises ConfigError
    when there is no model, WeightsError when it is not a tuned one, or was tuned on another base.
    """
    return model.with_tuning(model_folder(path))


def open_run(path: str | Path) -> tuple[Model, RecipeConfig]:
    """A run's best model (or that of the checkpoint given) and its recipe, with the run's present
    folder as its output.

    Raises ConfigError when there is no run.
    """
    recipe = run_recipe(path)
    return load(path), recipe


def run_recipe(path: str | Path) -> RecipeConfig:
    """The recipe of a run or of one of its checkpoints, with the run's present folder as its
    output.

    Raises ConfigError when there is no run.
    """
    folder = Path(path)
    if not folder.exists():
        raise ConfigError(
            f"{folder}: no such run; train one first, for instance with: skillweave quickstart"
        )
    places = [
        place
        for place in (folder, folder.parent, folder.parent.parent)
        if (place / RECIPE_FILE).is_file()
    ]
    if not places:
        remedy = (
            "; a model folder answers from Python (sw.load, sw.encode, sw.carve), or fine-tune it"
            " (start_from)"
        )
        known = (folder / CONFIG_FILE).is_file()
        raise ConfigError(
            f"{folder}: not a run folder (it has no {RECIPE_FILE})" + (remedy if known else "")
        )
    return read_recipe(places[0] / RECIPE_FILE).model_copy(update={"output": str(places[0])})


def encode(model: Model, task: str, **media: Sequence[Any]) -> NDArray[np.float32]:
    """Unit-length vectors [N, D] (float32) of raw inputs of one modality, comparable across the
    passes of the task.

    `media`: one of `text=`, `image=`, `sound=`, `video=`, `code=`, a list of strings, paths, bytes
    or decoded values. Raises ConfigError for an unknown task or a modality that the task does not
    encode alone, BadInput (naming it) for a broken item.
    """
    if len(media) != 1:
        raise ConfigError(
            "encode: give one of text=, image=, sound=, video=, code=, not"
            f" {' and '.join(media) or 'none'}"
        )
    name, values = next(iter(media.items()))
    if isinstance(values, str | bytes | Path):
        raise ConfigError(f"encode: {name}= is a list; write {name}=[...] for a single item")
    layout = single_pass(model, task, name)
    processor = build_processors(model.config, model.assets)[layout.spans[0].modality]
    device = next(model.parameters()).device
    vectors = []
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            resolved = model.resolve(task)
            for batch in _batches(model, layout, processor, values):
                vectors.append(model.embed(batch.to(device), resolved)[0].float().cpu())
    finally:
        model.train(training)
    return torch.cat(vectors).numpy() if vectors else np.zeros((0, model.config.width), np.float32)


def single_pass(model: Model, task: str, modality: str) -> Layout:
    """The layout of the task's pass that holds nothing but `modality`. Raises ConfigError when
    there is none."""
    layout = choose(model.config.tasks, task, "task").layout(task)
    alone = [layout.only(p) for p in range(len(layout.passes))]
    found = {one.spans[0].modality.value: one for one in alone if len(one.spans) == 1}
    choose({m.value: m for m in Modality}, modality, "modality")
    return choose(found, modality, f"modality of task {task!r}")


def build_batch(
    model: Model, layout: Layout, processor: Processor, values: Sequence[Any], start: int = 0
) -> Batch:
    """Raw values of one modality as a batch without labels. Raises BadInput that names the item,
    counted from `start`."""
    examples = []
    for i, value in enumerate(values, start):
        try:
            examples.append(Example((processor(value),), {}, str(i)))
        except BadInput as error:
            where = (
                ""
                if str(value) in str(error)
                else f"{value if isinstance(value, str | Path) else f'number {i}'}: "
            )
            raise BadInput(f"{layout.spans[0].modality.value} {where}{error}") from None
    return collate(layout, examples, model.config.streams, BUCKET)


def _batches(
    model: Model, layout: Layout, processor: Processor, values: Sequence[Any]
) -> Iterator[Batch]:
    for start in range(0, len(values), BATCH):
        yield build_batch(model, layout, processor, values[start : start + BATCH], start)

"""Examples of tasks from single rows, without a recipe."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skillweave.batch import Example, Modality
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.config.task import TaskSettings
from skillweave.data.processors import build_processors, tokenizer_asset, train_tokenizer
from skillweave.model.config import ModelConfig
from skillweave.tasks import TASKS, Task, TaskContext
from skillweave.tasks.task import Mode


def text_processors(
    model: ModelConfig, texts: Sequence[str], vocabulary: int = 300
) -> Mapping[Modality, Any]:
    """The processors of a model whose tokenizer is trained on some texts."""
    tokenizer = train_tokenizer(
        list(texts) * 3, TrainedTokenizerConfig(min_frequency=1), vocabulary
    )
    return build_processors(model, {tokenizer_asset(Modality.TEXT): tokenizer.to_str().encode()})


def make_context(
    model: ModelConfig,
    processors: Mapping[Modality, Any],
    target: Any = None,
    mode: Mode = Mode.EVALUATION,
    settings: TaskSettings | None = None,
    **more: Any,
) -> TaskContext:
    """What building an example may use. `more`: further fields of `TaskContext`."""
    return TaskContext(mode, model, settings or TaskSettings(), target, processors, **more)


def bound(name: str, context: TaskContext) -> Task:
    """The entry of the catalogue, bound to the context's model."""
    return TASKS[name].bind(context.target, context.model, context.settings)


def make_examples(name: str, row: Mapping[str, Any], context: TaskContext) -> list[Example]:
    """What evaluation and prediction see of a row."""
    return bound(name, context).build_parts({"key": "k", **row}, context)


def make_example(
    name: str,
    row: Mapping[str, Any],
    context: TaskContext,
    rng: np.random.Generator | None = None,
) -> Example:
    """The example of a row. `rng`: draws a training example; without it the first part that
    evaluation sees."""
    if rng is None:
        return make_examples(name, row, context)[0]
    return bound(name, context).build({"key": "k", **row}, context, rng)

"""Tasks that a model was not trained on, from class names or captions alone.

Nothing is added to the model. A task is its layout, and static routes that go by modality or
attributes know every layout; answers are texts that the model encodes itself. So a new task needs
no parameters, and finds those of the tasks that resemble it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from skillweave.batch import Modality
from skillweave.config import ConfigError, choose
from skillweave.config.data import Split
from skillweave.config.layering import load_yaml
from skillweave.config.task import TaskConfig
from skillweave.evaluation.evaluator import SPLITS
from skillweave.inference.loading import bare_recipe, choose_device, load, run_recipe
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.prompted import draw_examples
from skillweave.tasks.resolve import (
    ResolvedRecipe,
    bound_entry,
    recipe_entry,
    resolved,
    with_classes,
)
from skillweave.tasks.task import ResolvedTask, Task


def read_tasks(file: str | Path) -> dict[str, TaskConfig]:
    """The tasks of a recipe; what else stands in it is not looked at. Raises ConfigError with every
    fault of a task at once."""
    tasks = load_yaml(Path(file)).get("tasks")
    if not isinstance(tasks, dict) or not tasks:
        raise ConfigError(
            f"{file}: no tasks; write `tasks:` and under it each task with its data, as in a recipe"
        )
    return {
        name: TaskConfig.parse(task or {}, f"{file}: tasks.{name}") for name, task in tasks.items()
    }


def open_unseen(
    path: str | Path, file: str | Path, split: str = "test", device: str = "auto"
) -> tuple[Model, ResolvedRecipe]:
    """Any saved model on a device, and the recipe for the tasks in a file: see `load`,
    `read_tasks` and `with_unseen`."""
    tasks = read_tasks(file)
    model = load(path).to(choose_device(device))
    try:
        recipe = run_recipe(path)
    except ConfigError:  # a model folder has no recipe; only its settings of training are missing
        recipe = bare_recipe(model, tasks, path)
    return with_unseen(model, ResolvedRecipe(recipe, model.assets, {}), tasks, split)


def with_unseen(
    model: Model, recipe: ResolvedRecipe, tasks: Mapping[str, TaskConfig], split: str = "test"
) -> tuple[Model, ResolvedRecipe]:
    """The model and the recipe for these tasks, which `evaluate` can measure; the parameters are
    the model's own.

    Class names that a task leaves open are the labels of `split`. Raises ConfigError for a task
    that needs a stream, a target or a route's vector that the model lacks.
    """
    part: Split = choose(SPLITS, split, "split")
    layouts: dict[str, ModelTask] = {}
    chosen: dict[str, TaskConfig] = {}
    for name, config in tasks.items():
        entry = bound_entry(name, config.settings, None, model.config)
        _require_streams(model.config, name, entry)
        target = _target(model.config, name, entry, config)
        entry = bound_entry(name, config.settings, model.config.targets[target], model.config)
        layouts[name] = ModelTask(
            spans=entry.span_configs, targets={target: 1.0}, columns=config.data.columns
        )
        chosen[name] = config.model_copy(update={"target": target})
    able = model.with_tasks(layouts)
    for name in tasks:
        able.resolve(name)  # a route that knows trained tasks alone says so before any data is read
    unseen = recipe.recipe.model_copy(update={"model": able.config, "tasks": chosen})
    named = _with_examples(with_classes(unseen, part), part)
    for name, config in named.tasks.items():
        layouts[name] = layouts[name].model_copy(update={"settings": config.settings})
    able = model.with_tasks(layouts)
    return able, resolved(named.model_copy(update={"model": able.config}), model.assets)


def _with_examples(recipe: RecipeConfig, split: Split) -> RecipeConfig:
    """The recipe with the worked examples that its tasks ask for, drawn from the training split."""
    tasks = dict(recipe.tasks)
    for name, config in recipe.tasks.items():
        if not config.prompting.shots:
            continue
        if split == "train":
            raise ConfigError(
                f"tasks.{name}.prompting.shots: worked examples are drawn from the training split;"
                " evaluate another split"
            )
        entry = recipe_entry(recipe, name)
        task = ResolvedTask(name, entry, config.settings, recipe.model, config.target or "")
        examples = [*config.prompting.examples, *draw_examples(task, config)]
        prompting = config.prompting.model_copy(update={"examples": examples})
        tasks[name] = config.model_copy(update={"prompting": prompting})
    return recipe.model_copy(update={"tasks": tasks})


def _target(config: ModelConfig, name: str, entry: Task, task: TaskConfig) -> str:
    """The model's target for a task: the one it names, or the first that can learn such tasks."""
    kinds = " or ".join(entry.targets)
    able = [target for target, spec in config.targets.items() if entry.learns_by(type(spec))]
    if task.target:
        choose(dict.fromkeys(able), task.target, f"target of kind {kinds}")
    elif not able:
        raise ConfigError(
            f"task {name!r} needs a target of kind {kinds}, and this model has"
            f" {', '.join(config.targets)}; measure a task of another kind, or train with such a"
            " target"
        )
    return task.target or able[0]


def _require_streams(config: ModelConfig, name: str, entry: Task) -> None:
    present = config.streams.present()
    for span in entry.spans:
        if span.modality not in present:
            fault = f"task {name!r} needs a stream {span.modality.value!r}, and this model has"
            frames = ""
            if span.modality is Modality.VIDEO and Modality.IMAGE in present:
                frames = "; kind text_to_frames shows a clip's frames to the image stream"
            raise ConfigError(f"{fault} {', '.join(present)}{frames}")

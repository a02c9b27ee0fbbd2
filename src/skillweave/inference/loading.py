"""Open a saved model: a run, a checkpoint, a model folder, a Hugging Face folder or a hub id."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from skillweave.config import ConfigError, choose
from skillweave.config.data import DataConfig, Split
from skillweave.config.errors import reading
from skillweave.config.task import TaskConfig
from skillweave.config.training import TrainingConfig
from skillweave.data.sources import open_rows
from skillweave.data.sources.pinning import pin
from skillweave.model.folders import CONFIG_FILE, is_hf_model, model_folder, model_folders
from skillweave.model.model import Model
from skillweave.recipe import RECIPE_FILE, RecipeConfig, read_recipe
from skillweave.storage import Damaged
from skillweave.tasks.resolve import ResolvedRecipe, resolved
from skillweave.weights.files import WeightsError


def load(path: str | Path, tasks: str | Collection[str] | None = None) -> Model:
    """A saved model, ready for inference.

    `path`: a run (its best checkpoint), a checkpoint, a model folder, a folder of Transformers, the
    id of a model on the hub, of skillweave or Transformers (`org/name`, `org/name@commit`), or the
    name of a model that is installed with the package,
    `skillweave/NAME`.

    `tasks`: read and hold no more than what these tasks activate; all experts of routes that look
    at the data belong to it. The checksum of the weights is not checked then.

    In place of a damaged checkpoint of a run, another one is read, with a warning. Raises
    ConfigError when there is no model or it has no such task, WeightsError when its weights do not
    fit, Damaged when there is no other.
    """
    with reading(path, "a model that can be loaded"):
        return _load(path, tasks)


def _load(path: str | Path, tasks: str | Collection[str] | None) -> Model:
    if is_hf_model(path):
        from skillweave.interop import hub

        if not Path(path).is_dir() and hub.is_own(str(path)):
            return Model.from_pretrained(hub.pull(str(path)), tasks)
        from skillweave.interop.huggingface import from_hf  # thirty families

        model = from_hf(path)
        if tasks is not None:
            model.config.restricted(tasks)  # its one task is the whole model
        return model
    folders, faults = model_folders(path), []
    for folder in folders:
        try:
            model = Model.from_pretrained(folder, tasks)
        except (Damaged, WeightsError) as error:
            faults.append(error)
            continue
        if faults:
            warnings.warn(f"{faults[0]}; {folder} is used instead", stacklevel=2)
        return model
    raise faults[0]


def with_tuning(model: Model, path: str | Path) -> Model:
    """The tuned model of a run or model folder on a base that is in memory already, whose weights
    it shares.

    So one base serves many tunings: prompts share all that they leave alone. Raises ConfigError
    when there is no model, WeightsError when it is not a tuned one, or was tuned on another base.
    """
    return model.with_tuning(model_folder(path))


def open_run(path: str | Path) -> tuple[Model, ResolvedRecipe]:
    """The model of a run (or of one of its checkpoints) and its recipe, with the run's present
    folder as its output.

    Raises ConfigError when there is no run.
    """
    recipe = run_recipe(path)
    model = load(path)
    return model, resolved(recipe, model.assets)


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
    parents = (folder, folder.parent, folder.parent.parent)
    places = [place for place in parents if (place / RECIPE_FILE).is_file()]
    if not places:
        remedy = ""
        if (folder / CONFIG_FILE).is_file():
            remedy = "; a model folder has no data of its own: name them with --data TASK=PATH"
        raise ConfigError(f"{folder}: not a run folder (it has no {RECIPE_FILE}){remedy}")
    return read_recipe(places[0] / RECIPE_FILE).model_copy(update={"output": str(places[0])})


def recipe_for(
    model: Model, data: Mapping[str, str], where: str | Path, split: Split
) -> ResolvedRecipe:
    """A recipe that measures a model on other data: its tasks with the sources given for them.

    `data`: task → a source, whose columns are named as when the model was trained. All its rows
    are measured as `split`, unless it has a column of splits. Where the sources have the contents
    of the run's own, they were only moved, and this is the run's recipe with their new places.
    `where`: the folder of the model, and for results. Raises ConfigError for a task that the model
    does not have.
    """
    with suppress(ConfigError):
        return _moved(model, data, run_recipe(where))
    tasks = {}
    for name, path in data.items():
        task = choose(model.config.tasks, name, "task")
        settings = task.settings.model_dump(exclude_unset=True)
        parted = "split" in open_rows(path).columns
        source = DataConfig(path=path if parted else {split: path}, columns=task.columns)
        tasks[name] = TaskConfig(**settings, target=next(iter(task.targets)), data=source)
    return resolved(bare_recipe(model, tasks, where), model.assets)


def bare_recipe(model: Model, tasks: Mapping[str, TaskConfig], where: str | Path) -> RecipeConfig:
    """A recipe for a model that has none, such as a converted one. `where`: the folder of the
    model."""
    return RecipeConfig(
        name=Path(where).resolve().name.lstrip(".") or "model",
        output=str(where),
        model=model.config,
        tasks=dict(tasks),
        training=TrainingConfig(steps=1),
    )


def _moved(model: Model, data: Mapping[str, str], recipe: RecipeConfig) -> ResolvedRecipe:
    """A run's recipe with its data in other places. Raises ConfigError for other data."""
    tasks, ready = dict(recipe.tasks), resolved(recipe, model.assets)
    for name, path in data.items():
        before = choose(tasks, name, "task").data
        if not isinstance(before.fingerprint, str):
            raise ConfigError(f"{name}: the run did not read its data from one place")
        place = pin(before.model_copy(update={"path": path}), ready.task(name).entry.fields)
        tasks[name] = tasks[name].model_copy(update={"data": place})
    return resolved(recipe.model_copy(update={"tasks": tasks}), model.assets)


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name. `auto`: CUDA if there is a GPU, then MPS, then the CPU.

    Raises ConfigError for a device that this machine does not have.
    """
    available = {"cpu": True, "mps": torch.backends.mps.is_available()}
    available["cuda"] = torch.cuda.is_available()
    if name == "auto":
        return torch.device(next(one for one in ("cuda", "mps", "cpu") if available[one]))
    kind = name.partition(":")[0]
    if not available.get(kind, False):
        there = ", ".join(one for one, is_there in available.items() if is_there)
        raise ConfigError(f"device {name!r} is not available here; choose among {there}")
    return torch.device(name)

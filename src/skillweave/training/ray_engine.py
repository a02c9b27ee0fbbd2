"""Training where a Ray cluster runs: a run as the workers of Ray Train, and the trials of a sweep
as Ray's tasks.

The folders of runs and data must be at the same paths on all machines of the cluster.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import Any

from skillweave.config.training import TrainingConfig
from skillweave.environment import connect_to_ray
from skillweave.recipe import RecipeConfig
from skillweave.training.errors import Interrupted, TrainingError
from skillweave.training.parallel import device_kind
from skillweave.training.run import train, what_next
from skillweave.training.sweep import Trained, run_trial

EXTRA = "ray"


def train_on_ray(recipe: RecipeConfig, *, resume: bool = False) -> Path:
    """Train as `train` does, on `training.devices` workers of Ray Train, and return the run folder.

    Raises ConfigError as `train` does and without Ray or a cluster, and TrainingError if the run
    cannot continue or is stopped.
    """
    connect_to_ray(EXTRA)
    workers: Any = import_module("ray.train")
    of_torch: Any = import_module("ray.train.torch")

    folder = recipe.folder.absolute()
    given = {"recipe": recipe.model_dump(mode="json"), "resume": resume, "place": os.getcwd()}
    on_gpus = device_kind(recipe.training.accelerator) == "cuda"
    trainer = of_torch.TorchTrainer(
        _work,
        train_loop_config=given,
        scaling_config=workers.ScalingConfig(num_workers=recipe.training.devices, use_gpu=on_gpus),
        run_config=workers.RunConfig(name=folder.name, storage_path=str(folder.parent / "ray")),
    )
    try:
        told = trainer.fit().return_value
    except Exception as error:  # a worker died
        raise TrainingError(f"Ray Train: {error}; {what_next(recipe)}") from error
    if told:
        raise TrainingError(told)
    return recipe.folder


def _work(given: dict[str, Any]) -> str:
    """Train as one of the workers; why it ended early, if it did."""
    # Ray has set the variables of torchrun but for this one.
    os.environ["TORCHELASTIC_RUN_ID"] = EXTRA
    os.chdir(given["place"])
    try:
        train(RecipeConfig.parse(given["recipe"]), resume=given["resume"], quiet=True)
    except (ValueError, TrainingError, Interrupted) as ended:
        return str(ended)
    return ""


class RayTrials:
    """Starts the trials of a sweep on a Ray cluster. `at_once`: how many it has room for."""

    def __init__(self, config: TrainingConfig) -> None:
        """`config`: of a trial. Raises ConfigError without Ray or a cluster."""
        ray = connect_to_ray(EXTRA)
        needs = {"CPU": config.devices * (config.threads or 1)}
        if device_kind(config.accelerator) == "cuda":
            needs["GPU"] = config.devices
        there = ray.cluster_resources()
        self.at_once = max(1, min(int(there.get(kind, 0)) // n for kind, n in needs.items()))
        options = {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0), "max_retries": 0}
        self._task = ray.remote(_trial).options(**options)

    def start(self, recipe: RecipeConfig) -> Future[Trained]:
        """Start a trial."""
        return self._task.remote(recipe.model_dump(mode="json"), os.getcwd()).future()


def _trial(recipe: dict[str, Any], place: str) -> Trained:
    os.chdir(place)
    return run_trial(RecipeConfig.parse(recipe))

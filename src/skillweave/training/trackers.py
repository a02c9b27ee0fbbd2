"""Where the figures of a run go besides its own logs: TensorBoard, Trackio, Weights & Biases,
MLflow."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.reporting.logs import TENSORBOARD_FOLDER

MLFLOW_FOLDER, MLFLOW_FILE = "mlruns", "mlflow_run.txt"
WANDB_FOLDER = "wandb"


class Tracker(ABC):
    """A service that draws figures over steps. A resumed run goes on with the same curves.

    `folder`: of the run. `name`: of its recipe. `settings`: of the recipe. `step`: after which the
    run goes on; 0 for a new one.
    """

    package: str
    """What must be installed."""

    @abstractmethod
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], step: int) -> None: ...

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add values of a step, by name."""

    @abstractmethod
    def close(self) -> None:
        """Send what is left."""


class TensorBoard(Tracker):
    """Files in the run folder."""

    package = "tensorboard"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purged = step + 1 if step else None
        self.writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=purged)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker`."""
        self.writer.close()


class Trackio(Tracker):
    """A local database with the project `skillweave`; `trackio show` draws it."""

    package = "trackio"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], step: int) -> None:
        import trackio

        # two runs of one recipe in two folders are two runs
        self.run = trackio.init(
            project="skillweave",
            name=f"{name}-{_number(folder)}",
            config=dict(settings),
            resume="allow",
            embed=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self.run.finish()


class WeightsAndBiases(Tracker):
    """The project `skillweave`, or that of WANDB_PROJECT. WANDB_MODE=offline keeps it in the run
    folder."""

    package = "wandb"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], step: int) -> None:
        wandb = import_module("wandb")  # not among the packages of the development tools
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "skillweave"),
            name=name,
            id=_number(folder),
            dir=str(folder),
            config=dict(settings),
            resume="allow",
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self.run.finish()


class MLflow(Tracker):
    """The experiment `skillweave`, in the run folder unless MLFLOW_TRACKING_URI names a server."""

    package = "mlflow"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], step: int) -> None:
        tracking = import_module("mlflow.tracking")
        database = f"sqlite:///{(folder / MLFLOW_FOLDER).absolute()}.db"
        self.client = tracking.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", database))
        stored = folder / MLFLOW_FILE
        if step and stored.is_file():
            self.run_id = stored.read_text("utf-8").strip()
            return
        experiment = self.client.get_experiment_by_name("skillweave")
        number = experiment.experiment_id if experiment else None
        run = self.client.create_run(
            number or self.client.create_experiment("skillweave"), run_name=name
        )
        self.run_id = run.info.run_id
        stored.write_text(self.run_id, "utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self.client.log_metric(self.run_id, name, value, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self.client.set_terminated(self.run_id)


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""Name in `training.track` → tracker."""


def why_absent(called: str) -> str:
    """Why a tracker cannot be used, with the remedy; empty if it can."""
    package = TRACKERS[called].package
    try:
        import_module(package)
    except ImportError as error:
        return f"{called} needs the package {package} ({error}); run pip install {package}"
    return ""


def require_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError for a tracker whose package is not installed, before a run begins."""
    for called in names:
        if why := why_absent(called):
            raise ConfigError(f"training.track: {why}, or leave {called} out")


def open_trackers(
    names: Sequence[str], folder: Path, name: str, settings: Mapping[str, Any], step: int
) -> list[Tracker]:
    """The trackers of a run, whose packages are installed."""
    return [TRACKERS[called](folder, name, settings, step) for called in names]


def _number(folder: Path) -> str:
    """A name of a run folder that is the same when the run goes on."""
    return hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]

"""A run and a sweep on a Ray cluster of this machine, against the same without Ray."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from training_recipes import recipe

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.recipe import RecipeConfig
from skillweave.storage import read_checksums
from skillweave.training.errors import TrainingError
from skillweave.training.ray_engine import RayTrials, train_on_ray
from skillweave.training.sweep import Varied, sweep

TASK = ("text_classification",)
RATE = "training.optimizer.learning_rate"
SETTINGS = {"steps": 2, "validate_every": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_run_on_ray_is_the_same_run(tmp_path: Path) -> None:
    here = sw.train(recipe(tmp_path / "here", TASK, **SETTINGS), quiet=True)
    there = train_on_ray(recipe(tmp_path / "there", TASK, **SETTINGS))
    sums = [read_checksums(folder / "last")["model.safetensors"] for folder in (here, there)]
    assert sums[0] == sums[1]
    with pytest.raises(TrainingError, match="already holds a run; continue it with --resume"):
        train_on_ray(recipe(there, TASK, **SETTINGS))


@pytest.mark.usefixtures("cluster")
def test_trials_on_ray_are_told_and_go_on(tmp_path: Path) -> None:
    def read(changes: Sequence[str]) -> RecipeConfig:
        given = dict(one.partition("=")[::2] for one in changes)
        folder = given.get("output", str(tmp_path / "unused"))
        rate = {"learning_rate": float(given[RATE])}
        return recipe(folder, TASK, optimizer=rate, **SETTINGS)

    trials = RayTrials(read([f"{RATE}=1e-3"]).training)
    assert trials.at_once == 2
    varied = [Varied(RATE, 1e-4, 1e-2, log=True)]
    places = {"start": trials.start, "at_once": trials.at_once}
    found = sweep(read, varied, tmp_path / "sweep", 2, **places)
    assert [one.state for one in found] == ["complete"] * 2
    assert all((Path(one.folder) / "last").is_dir() for one in found)
    assert sweep(read, varied, tmp_path / "sweep", 2, **places) == found


def test_without_ray_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'skillweave\[ray\]'"):
        train_on_ray(recipe(tmp_path / "run", TASK))

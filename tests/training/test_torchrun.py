"""Processes that torchrun starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import make_run

from skillweave.config import ConfigError
from skillweave.recipe import read_recipe
from skillweave.training.parallel import with_started_processes

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "skillweave"]
SETTINGS = ("training.steps=3", "training.threads=1", "training.accelerator=cpu")


def run(*words):
    """A Python module with these words."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe of five modalities."""
    return make_run(tmp_path_factory.mktemp("torchrun") / "made") / "recipe.yaml"


def test_a_run_of_torchrun_is_that_of_as_many_devices(recipe, tmp_path):
    ours = run("skillweave", "train", recipe, f"output={tmp_path / 'a'}", "training.devices=2",
               *SETTINGS)  # fmt: skip
    assert ours.returncode == 0, ours.stderr
    theirs = run(*TORCHRUN, "train", recipe, f"output={tmp_path / 'b'}", *SETTINGS)
    assert theirs.returncode == 0, theirs.stderr
    assert theirs.stdout.count("is trained") == 1
    expected, found = (
        load_file(tmp_path / name / "last" / "model.safetensors") for name in ("a", "b")
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert read_recipe(tmp_path / "b" / "recipe.yaml").training.devices == 2
    again = run(*TORCHRUN, "train", recipe, f"output={tmp_path / 'b'}", *SETTINGS)
    assert again.returncode
    assert again.stderr.count("already holds a run") == 1


def test_another_number_of_devices_is_refused(recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    asked = read_recipe(recipe, ["training.devices=2"])
    with pytest.raises(ConfigError, match="torchrun started 4 processes"):
        with_started_processes(asked)
    assert with_started_processes(read_recipe(Path(recipe))).training.devices == 4

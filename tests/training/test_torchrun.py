"""Processes that torchrun starts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import make_run

from skillweave.config import ConfigError
from skillweave.recipe import read_recipe
from skillweave.training.checkpoint import Checkpoints, TrainingState
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


def test_torchrun_starts_a_killed_run_again(recipe, tmp_path):
    folder, steps = tmp_path / "killed", 10
    words = [*TORCHRUN, "train", recipe, f"output={folder}", *SETTINGS[1:], "training.log_every=1",
             f"training.steps={steps}", "training.checkpoint_every=1"]  # fmt: skip
    words[words.index("-m") : words.index("-m")] = ["--max-restarts", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as started:
        while not Checkpoints(folder).steps() and started.poll() is None:
            time.sleep(0.05)
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        told = started.communicate(timeout=300)[1]
    assert started.returncode == 0, told
    assert "Signal 9" in told or "signal 9" in told
    assert TrainingState.read(folder / "last").step == steps
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [*range(1, steps + 1)]


def test_another_number_of_devices_is_refused(recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    asked = read_recipe(recipe, ["training.devices=2"])
    with pytest.raises(ConfigError, match="torchrun started 4 processes"):
        with_started_processes(asked)
    assert with_started_processes(read_recipe(Path(recipe))).training.devices == 4

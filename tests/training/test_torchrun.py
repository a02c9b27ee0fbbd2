"""Processes that torchrun starts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from processes import FORK
from safetensors.torch import load_file
from tiny_run import make_run

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.recipe import read_recipe
from skillweave.training.checkpoint import TrainingState
from skillweave.training.parallel import with_started_processes
from skillweave.training.trainer import Trainer

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


def train_as_torchrun(recipe, settings, port, attempt, rank, kill):
    """One of two processes, with the variables that torchrun sets; `kill`: the step in which it
    dies."""
    torch.set_num_threads(1)
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank,
             "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "a",
             "TORCHELASTIC_RESTART_COUNT": attempt,
             "TORCHELASTIC_USE_AGENT_STORE": True}  # fmt: skip
    os.environ.update({name: str(value) for name, value in given.items()})
    update = Trainer.update

    def dying(self, batches):
        if self.state.step == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, batches)

    with patch.object(Trainer, "update", dying):
        sw.train(read_recipe(recipe, settings), quiet=True)


@pytest.mark.filterwarnings("ignore")
def test_a_killed_run_that_torchrun_starts_again_continues(recipe, tmp_path):
    """The agent of torchrun has the store of all attempts."""
    folder, steps = tmp_path / "killed", 6
    settings = [f"output={folder}", f"training.steps={steps}", "training.checkpoint_every=2",
                "training.log_every=1", *SETTINGS[1:]]  # fmt: skip
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    for attempt, kill in enumerate((3, None)):
        processes = [
            FORK.Process(
                target=train_as_torchrun,
                args=(recipe, settings, store.port, attempt, rank, kill if rank else None),
            )
            for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        processes[1].join(120)
        if kill is not None:
            assert processes[1].exitcode == -signal.SIGKILL
            processes[0].terminate()  # as the agent does, if it has not ended by itself
        processes[0].join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert TrainingState.read(folder / "last").step == steps
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [*range(1, steps + 1)]


def test_another_number_of_devices_is_refused(recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    asked = read_recipe(recipe, ["training.devices=2"])
    with pytest.raises(ConfigError, match="torchrun started 4 processes"):
        with_started_processes(asked)
    assert with_started_processes(read_recipe(Path(recipe))).training.devices == 4

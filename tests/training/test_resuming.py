"""Checkpoints of several processes, and runs that go on with another number of processes."""

import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import fabric_in_group, run_in_group
from safetensors.torch import load_file
from tiny_run import make_run

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.config.task import TaskConfig
from skillweave.config.training import TrainingConfig
from skillweave.data.mixture import Mixture
from skillweave.recipe import read_recipe
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.run import _run, prepare
from skillweave.training.run_folder import run_folder
from skillweave.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS, STOP = 6, 3
EXACT = (
    "model.encoder.dropout=0",
    "model.encoder.attention_dropout=0",
    f"training.steps={STEPS}",
    "training.threads=1",
    "training.accelerator=cpu",
    "training.log_every=1",
    "training.optimizer.learning_rate=0.01",
    # the gradients of key biases are rounding errors, which AdamW would make as large as others
    "training.optimizer.epsilon=0.001",
)
TASKS = (
    "text_classification",
    "text_to_image",
    "speech_recognition",
    "text_to_video",
    "text_to_code",
)
IN_PARTS = ("training.parallel.kind=sharded", "training.asynchronous_checkpoints=true",
            "training.checkpoint_every=2")  # fmt: skip


def batch_sizes(size):
    """The settings that give every task this size."""
    return [f"tasks.{name}.batch_size={size}" for name in TASKS]


class Rows:
    """The samples of a task: their numbers."""

    def __init__(self, count, sized):
        self.count, self.sized = count, sized

    def __len__(self):
        return self.count

    def example(self, index, rng):
        return index

    def key(self, index):
        return str(index)

    def collate(self, examples, skipped, rng=None):
        return list(examples)

    def sizes(self, rows):
        return rows % 7 if self.sized else None

    def group_ids(self):
        return None

    def blocks(self):
        return None


@given(st.integers(12, 40), st.booleans(), st.integers(0, 9), st.integers(1, 2))
def test_a_step_has_the_same_samples_on_any_number_of_processes(rows, sized, seed, accumulation):
    """And an epoch has no sample twice."""
    steps = []
    for world in (1, 2, 3, 6):
        task = TaskConfig.parse({"data": {"path": "none"}, "batch_size": 6 // world})
        settings = {"seed": seed, "gradient_accumulation_steps": accumulation, "steps": 20}
        training = TrainingConfig.parse(settings)
        ranks = [
            Mixture({"a": Rows(rows, sized)}, training, {"a": task}, rank, world)
            for rank in range(world)
        ]
        batches = range(20 * accumulation)
        steps.append([Counter(row for rank in ranks for row in rank[index]) for index in batches])
    assert all(found == steps[0] for found in steps)
    epoch = rows // 6
    assert max(sum(steps[0][:epoch], Counter()).values()) == 1


def train_here(rank, world, source, folder, settings, stop=None):
    """Train on one of the processes of a group; `stop`: the step that a signal ends."""
    fabric = fabric_in_group()
    recipe = read_recipe(source, [*EXACT, *IN_PARTS, f"output={folder}", f"training.devices={world}",
                                  *settings])  # fmt: skip
    ready = [prepare(recipe, resume=False)] if rank == 0 else [None]
    torch.distributed.broadcast_object_list(ready)
    update = Trainer.update

    def stopping(self, batches):
        if self.state.step + 1 == stop and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, batches)

    with patch.object(Trainer, "update", stopping):
        if rank == 0:
            with run_folder(ready[0].recipe, False):
                return _run(fabric, *ready[0], True)
        return _run(fabric, *ready[0], True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("resuming") / "made", feed_forward={"route": "skill"})
    return run / "recipe.yaml"


@pytest.fixture(scope="module")
def stopped(source, tmp_path_factory):
    """A run of two processes in parts, which a signal has stopped."""
    folder = tmp_path_factory.mktemp("resuming") / "stopped"
    found = run_in_group(2, train_here, source, folder, batch_sizes(2), STOP)
    assert [(one.step, one.signal) for one in found] == [(STOP, signal.SIGTERM)] * 2
    return folder


@pytest.fixture(scope="module")
def straight(source, tmp_path_factory):
    """The same on one process, without a stop: `batch_size` of it is that of both."""
    folder = tmp_path_factory.mktemp("resuming") / "straight"
    sizes = batch_sizes(4)
    sw.train(read_recipe(source, [*EXACT, *sizes, f"output={folder}"]), quiet=True)
    return folder


def test_a_checkpoint_of_several_processes_is_a_model_folder(stopped):
    last = stopped / "last"
    parts = sorted(file.name for file in (last / "optimizer").iterdir())
    assert [name.split("-")[:2] for name in parts] == [["shard", "00001"], ["shard", "00002"]]
    assert all(name.endswith(".safetensors") for name in parts)
    assert not (last / "model").exists()
    told = (last / "SHA256SUMS").read_text()
    assert all(name in told for name in [*parts, "model.safetensors", "state.json"])
    assert sw.load(stopped).count_parameters() > 0
    assert not list(stopped.rglob("*.partial"))


def test_a_damaged_part_gives_way_to_the_checkpoint_before(stopped, tmp_path):
    run = Path(shutil.copytree(stopped, tmp_path / "run", symlinks=True))
    checkpoints = Checkpoints(run)
    assert checkpoints.steps() == [2, 3]
    part = next((checkpoints.path(3) / "optimizer").glob("shard-00002-*"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{part.name}: damaged"):
        assert checkpoints.newest_undamaged() == checkpoints.path(2)


def test_a_run_goes_on_with_another_number_of_processes(source, stopped, straight, tmp_path):
    run = Path(shutil.copytree(stopped, tmp_path / "run", symlinks=True))
    recipe = read_recipe(run / "recipe.yaml", [f"output={run}", "training.devices=1"])
    sw.train(recipe, resume=True, quiet=True)
    state, expected = (TrainingState.read(one / "last") for one in (run, straight))
    assert state.samples == expected.samples and state.processes == 1
    weights, others = (load_file(one / "last" / "model.safetensors") for one in (run, straight))
    assert weights.keys() == others.keys()
    for name, weight in others.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-5)


def test_a_number_that_cannot_divide_the_batches_is_refused(stopped):
    recipe = read_recipe(stopped / "recipe.yaml", [f"output={stopped}", "training.devices=3"])
    with pytest.raises(ConfigError, match="samples in all, which 3 replicas cannot divide"):
        prepare(recipe, resume=True)


def test_too_few_samples_for_the_same_batches_are_refused(source, stopped, tmp_path):
    """Of 6 samples, one process would train on 6 at a time, and two on 4."""
    run = Path(shutil.copytree(stopped, tmp_path / "run", symlinks=True))
    stored = read_recipe(run / "recipe.yaml")
    changed = stored.model_copy(
        update={
            "tasks": {n: t.model_copy(update={"batch_size": 4}) for n, t in stored.tasks.items()}
        }
    )
    recipe = read_recipe(run / "recipe.yaml", [f"output={run}", "training.devices=1"])
    with (
        patch("skillweave.training.run.stored_recipe", lambda folder: changed),
        patch("skillweave.training.run_folder.stored_recipe", lambda folder: changed),
        pytest.raises(ConfigError, match="too few samples for the batches of 1 processes"),
    ):
        sw.train(recipe.model_copy(update={"tasks": changed.tasks}), resume=True, quiet=True)

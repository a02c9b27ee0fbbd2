"""What goes wrong while a run trains: a reader that does not answer, and losses that jump."""

import json
import signal
import time
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import TinyModel, TinyOutput, fit_tiny, tiny_recipe, tiny_trainer
from tiny_run import make_run

import skillweave as sw
from skillweave.config.training import LossSpikeConfig
from skillweave.recipe import read_recipe
from skillweave.tasks.dataset import TaskDataset
from skillweave.training.checkpoint import TrainingState
from skillweave.training.errors import TrainingError
from skillweave.training.loss_spikes import find_spikes
from skillweave.training.optimizer import optimizer_tensors


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stalled_reader_is_named_and_the_finished_steps_are_kept(tmp_path, workers):
    run = make_run(tmp_path / "made")
    settings = [f"output={tmp_path / 'run'}", "training.steps=9", "training.accelerator=cpu",
                f"training.workers={workers}", "training.reader_timeout=0.3"]  # fmt: skip
    recipe = read_recipe(run / "recipe.yaml", settings)
    tasks = {"text_to_image": recipe.tasks["text_to_image"]}
    read, reads = TaskDataset.example, []

    def stalls(self, index, rng):
        reads.append(index)
        if len(reads) == 10:
            try:
                time.sleep(60)
            except Exception:
                return read(self, index, rng)  # as a decoder that takes errors for broken files
        return read(self, index, rng)

    before = signal.getsignal(signal.SIGALRM)
    with patch.object(TaskDataset, "example", stalls), pytest.raises(TrainingError) as told:
        sw.train(recipe.model_copy(update={"tasks": tasks}), quiet=True)
    assert signal.getsignal(signal.SIGALRM) == before
    assert "was not read within 0.3 s" in str(told.value) and "--resume" in str(told.value)
    files = {str(file) for file in (tmp_path / "made" / "data").rglob("*.png")}
    assert any(file in str(told.value) for file in files)
    assert TrainingState.read(tmp_path / "run" / "last").step == 2  # of 4 samples each


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12))
def test_averages_are_those_of_the_losses(losses):
    averages = {}
    for loss in losses:
        assert find_spikes({"a": loss}, averages, LossSpikeConfig(window=30)) == []
    count, mean, variance = averages["a"]
    assert count == len(losses)
    assert mean == pytest.approx(np.mean(losses), abs=1e-9)
    assert variance == pytest.approx(np.var(losses), abs=1e-9)


def test_a_loss_far_above_the_others_of_its_task_is_a_spike():
    averages, config = {}, LossSpikeConfig(window=4, deviations=3)
    for loss in (1.0, 3.0, 1.0, 3.0):  # mean 2, deviation 1
        assert not find_spikes({"a": loss, "b": 100 * loss}, averages, config)
    assert not find_spikes({"b": 499.0}, dict(averages), config)
    assert find_spikes({"a": 5.1, "b": 499.0}, dict(averages), config) == ["a"]
    known = dict(averages)
    find_spikes({"a": 50.0}, averages, config)
    assert averages == known  # it does not count


class Jumping(TinyModel):
    """Its loss is a thousand times as large for inputs that are."""

    def forward(self, batch, **settings):
        found = super().forward(batch, **settings)
        return TinyOutput(found.loss * (1000 if batch.inputs[0].abs().max() > 1000 else 1))


@pytest.mark.parametrize("action", ["skip", "roll_back"])
def test_a_step_with_a_spike_changes_nothing_or_goes_back(tmp_path, action):
    def spoil(index, x):
        if index == 13:
            x.mul_(1e4)

    recipe = tiny_recipe(
        tmp_path, steps=20, loss_spikes={"window": 3, "deviations": 20, "action": action}
    )
    with tiny_trainer(recipe, spoil=spoil, model=Jumping()) as trainer:
        trainer.model.train()

        def present():
            found = optimizer_tensors(trainer.bare_optimizer, trainer.model)
            found |= trainer.model.state_dict()
            return {name: x.clone() for name, x in found.items()}

        batches = trainer.batches()
        for _ in range(10):
            trainer.update(batches)
        trainer._save_checkpoint()
        saved = present()
        for _ in range(3):
            trainer.update(batches)
        before = present()
        assert trainer.state.spikes == 0
        trainer.update(batches)
        assert trainer.state.spikes == 1 and trainer.state.step == 14
        expected = saved if action == "roll_back" else before
        after = present()
        assert after.keys() == expected.keys()
        assert all(torch.equal(after[name], x) for name, x in expected.items())
        trainer.update(batches)
        assert any(not torch.equal(x, after[name]) for name, x in present().items())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (spike,) = [line for line in lines if line["kind"] == "spike"]
    assert spike["step"] == 14 and spike["loss"] > spike["mean"] + 20 * spike["deviation"]
    back = str(trainer.checkpoints.path(10)) if action == "roll_back" else None
    assert spike["back_to"] == back


def test_too_many_spikes_end_the_run(tmp_path):
    def spoil(index, x):
        if index > 8:
            x.mul_(1e4)

    spikes = {"window": 2, "deviations": 20, "limit": 2}
    with pytest.raises(TrainingError, match="2 steps whose loss was far above"):
        fit_tiny(tiny_recipe(tmp_path, loss_spikes=spikes), spoil=spoil, model=Jumping())
    assert TrainingState.read(tmp_path / "last").spikes == 2

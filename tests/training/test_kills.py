"""Random kills in several modes: nothing is lost, and nothing is seen twice.

`benchmarks/training/kills.py` does the same with complete runs.
"""

import os
import signal

import numpy as np
import pytest
import torch
from processes import fabric_in_group, run_in_group
from safetensors.torch import load_file
from stand_ins import TinyModel, fit_tiny, tiny_recipe, validate_tiny

from skillweave.training.checkpoint import TrainingState

pytestmark = pytest.mark.filterwarnings("ignore")

MODES = [(kind, later) for kind in ("replicated", "sharded") for later in (False, True)]
STEPS = 12


def train_once(rank, world, folder, kind, later, kill):
    """Train, or continue; `kill`: the process and the micro-batch at which it dies, if any."""

    def spoil(index, x):
        if kill == (rank, index):
            os.kill(os.getpid(), signal.SIGKILL)

    recipe = tiny_recipe(folder, steps=STEPS, devices=world, checkpoint_every=2, validate_every=5,
                         parallel={"kind": kind}, asynchronous_checkpoints=later)  # fmt: skip
    model = TinyModel(dropout=0.25, noise=0.1)
    fit_tiny(recipe, fabric=fabric_in_group(), spoil=spoil, model=model, validate=validate_tiny)
    return True


@pytest.mark.parametrize(("kind", "later"), MODES)
def test_killed_groups_resume_to_the_same_weights(tmp_path, kind, later):
    rng = np.random.default_rng(MODES.index((kind, later)))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_in_group(2, train_once, whole, kind, later, None) == [True, True]
    kill = int(rng.integers(2)), int(rng.integers(1, STEPS))
    with pytest.raises(RuntimeError):
        run_in_group(2, train_once, killed, kind, later, kill)
    assert run_in_group(2, train_once, killed, kind, later, None) == [True, True]
    assert TrainingState.read(killed / "last").samples == TrainingState.read(whole / "last").samples
    for link in ("last", "best"):
        expected, found = (load_file(run / link / "model.safetensors") for run in (whole, killed))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], x) for name, x in expected.items())
    assert not list(killed.rglob("*.partial"))

"""Killed processes, and several processes."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stand_ins import TinyModel, fit_tiny, tiny_recipe, tiny_trainer, validate_tiny

from skillweave import storage
from skillweave.config import ConfigError
from skillweave.training.checkpoint import TrainingState
from skillweave.training.parallel import launch, make_fabric

FORK = multiprocessing.get_context("fork")


def run_and_die(recipe, prepare_death):
    """Train in a child process that kills itself. Returns its exit code."""

    def work():
        torch.set_num_threads(1)
        fit_tiny(recipe, spoil=prepare_death(), validate=validate_tiny)

    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def at_micro_batch(number):
    return lambda: lambda index, x: die() if index == number else None


def at_call(owner, name, count, after):
    def prepare():
        real, calls = getattr(owner, name), []

        def call(*args, **kwargs):
            calls.append(1)
            if len(calls) == count and not after:
                die()
            result = real(*args, **kwargs)
            if len(calls) == count:
                die()
            return result

        setattr(owner, name, call)

    return prepare


DEATHS = {
    "before the first step": at_micro_batch(0),
    "before the first checkpoint": at_micro_batch(2),
    "after a checkpoint": at_micro_batch(7),
    "at the last step": at_micro_batch(11),
    # A checkpoint replaces its state, its checksums, itself and each link; a validation replaces
    # its result, the checksums and each link.
    "in the middle of fsync": at_call(os, "fsync", 9, after=False),
    "before a checkpoint has its name": at_call(os, "replace", 7, after=False),
    "before a validation": at_call(os, "replace", 8, after=True),
    "after the result of a validation": at_call(os, "replace", 9, after=True),
    "between two links": at_call(os, "replace", 12, after=False),
    "before an old checkpoint goes": at_call(os, "rename", 1, after=False),
    "in the middle of a deletion": at_call(storage.shutil, "rmtree", 1, after=False),
    "before the state": at_call(TrainingState, "write", 2, after=False),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    recipe = tiny_recipe(tmp_path_factory.mktemp("whole"), checkpoint_every=3, validate_every=4)
    torch.set_num_threads(1)
    fit_tiny(recipe, validate=validate_tiny)
    return recipe.folder


ASYNCHRONOUS = ("after a checkpoint", "in the middle of fsync", "between two links")


@pytest.mark.parametrize(
    ("death", "later"), [*((d, False) for d in DEATHS), *((d, True) for d in ASYNCHRONOUS)]
)
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, uninterrupted, death, later):
    recipe = tiny_recipe(
        tmp_path, checkpoint_every=3, validate_every=4, asynchronous_checkpoints=later
    )
    assert run_and_die(recipe, DEATHS[death]) == -signal.SIGKILL
    fit_tiny(recipe, validate=validate_tiny)
    for name in ("model.safetensors", "optimizer.safetensors"):
        for link in ("last", "best"):
            assert (tmp_path / link / name).read_bytes() == (
                uninterrupted / link / name
            ).read_bytes()
    assert not list(tmp_path.rglob("*.partial"))


def exact_model():
    """A model without random numbers, which differ between one and two processes."""
    torch.manual_seed(0)
    return TinyModel(dropout=0, noise=0)


def work_together(fabric, folder):
    """Train on one of two processes and save its weights."""
    torch.set_num_threads(1)
    recipe = tiny_recipe(Path(folder), devices=2, validate_every=6)
    with tiny_trainer(
        recipe, fabric=fabric, model=exact_model(), validate=validate_tiny
    ) as trainer:
        trainer.fit()
        save_file(
            trainer.model.state_dict(), Path(folder) / f"rank-{fabric.global_rank}.safetensors"
        )
        state = trainer.bare_optimizer.state
        return trainer.state.samples, int(state[trainer.model.skills["right"].weight]["step"])


@pytest.mark.filterwarnings("ignore")
def test_two_processes_train_as_one_that_accumulates_two(tmp_path):
    recipe = tiny_recipe(tmp_path / "pair", devices=2)
    recipe.folder.mkdir()
    samples, rested = launch(make_fabric(recipe.training), work_together, str(recipe.folder))
    assert samples == {"left": 6 * 2 * 4, "right": 6 * 2 * 4}
    assert rested == 6  # the right skill's updates alone, though DDP averages gradients
    ranks = [load_file(recipe.folder / f"rank-{rank}.safetensors") for rank in (0, 1)]
    single = tiny_recipe(tmp_path / "single", gradient_accumulation_steps=2, validate_every=6)
    alone = fit_tiny(single, model=exact_model(), validate=validate_tiny)
    for name, weight in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], weight, rtol=1e-4, atol=1e-6)
    assert (recipe.folder / "last" / "state.json").is_file()


def fail_on_one(fabric, folder):
    """Train until the second process cannot read its data."""
    torch.set_num_threads(1)

    def spoil(index, x):
        if index == 3 and fabric.global_rank == 1:
            raise ConfigError("100 broken samples in a row")

    try:
        fit_tiny(tiny_recipe(Path(folder), devices=2), fabric=fabric, spoil=spoil)
    except ConfigError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore")
def test_an_error_of_one_process_ends_all_and_keeps_the_finished_steps(tmp_path):
    recipe = tiny_recipe(tmp_path, devices=2)
    told = launch(make_fabric(recipe.training), fail_on_one, str(tmp_path))
    assert told == "100 broken samples in a row"
    assert TrainingState.read(tmp_path / "last").step == 3

"""The gradient of an update does not depend on how its samples are divided into micro-batches and
processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from stand_ins import tiny_recipe, tiny_trainer
from tiny import TARGETS, TASKS, labelled, make_batch, random_examples, tiny_config, tiny_model

from skillweave.training.parallel import launch, make_fabric
from skillweave.training.trainer import LossTerms, loss_scales

LENGTHS = {
    "masked_text": [[3], [29], [4], [17]],
    "masked_code": [[4, 2], [15, 30], [3, 8], [12, 4]],
    "captioning": [[5, 3], [5, 25], [5, 5], [5, 12]],
    "masked_sound": [[2], [15], [4], [9]],
    "classify": [[3], [29], [4], [17]],
}


def make_model():
    """Text and code have an output layer each, so that the masked code has two losses."""
    torch.manual_seed(0)
    targets = {**TARGETS, "code": {"kind": "mlm", "modality": "code"}}
    masked_code = {**TASKS["masked_code"], "targets": {"mlm": 1.0, "code": 0.5}}
    tasks = {**TASKS, "masked_code": masked_code}
    return tiny_model(tiny_config(shared=[], targets=targets, tasks=tasks))


def batches(task, *groups):
    """The labelled samples of a task, divided."""
    torch.manual_seed(1)
    config = make_model().config
    examples = random_examples(task, LENGTHS[task], config)
    examples = labelled(task, examples, np.random.default_rng(0))
    return [make_batch(task, [examples[i] for i in group], config) for group in groups]


def gradients(folder, parts, fabric=None, devices=1):
    """The loss and the gradients of one update."""
    recipe = tiny_recipe(
        folder,
        devices=devices,
        gradient_accumulation_steps=len(parts),
        optimizer={"max_grad_norm": None},
    )
    model = make_model()
    with tiny_trainer(recipe, fabric=fabric, model=model) as trainer:
        loss = trainer.backward(iter(parts))[0]
        named = model.named_parameters()
        return {"loss": loss.double()} | {n: p.grad for n, p in named if p.grad is not None}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found.pop("loss"), expected.pop("loss"), rtol=1e-6, atol=0)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("task", LENGTHS)
def test_accumulating_is_the_same_as_a_larger_batch(tmp_path, task):
    parts = batches(task, [0, 2], [1, 3])
    (whole,) = batches(task, [0, 2, 1, 3])
    assert_equal(gradients(tmp_path / "a", parts), gradients(tmp_path / "b", [whole]))


PAIRS = st.lists(st.tuples(st.integers(2, 15), st.integers(2, 30)), min_size=2, max_size=6)


@given(lengths=PAIRS, cuts=st.sets(st.integers(1, 5)), seed=st.integers(0, 99))
def test_any_division_into_micro_batches_has_the_gradient_of_the_whole(lengths, cuts, seed):
    model = make_model()
    examples = random_examples("masked_code", lengths, model.config)
    examples = labelled("masked_code", examples, np.random.default_rng(seed))
    ends = [*sorted(cut for cut in cuts if cut < len(examples)), len(examples)]
    parts = [examples[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    found = []
    for division in (parts, [examples]):
        batches = [make_batch("masked_code", part, model.config) for part in division]
        update = [LossTerms("masked_code", model.loss_terms(batch)) for batch in batches]
        model.zero_grad()
        for batch, own in zip(batches, update, strict=True):
            loss = model(batch, loss_scales=loss_scales(own, update)).loss
            (loss / len(batches)).backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    for accumulated, whole in zip(*found, strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-9, atol=1e-12)


def test_several_tasks_in_one_update_are_averaged(tmp_path):
    mixed = [*batches("masked_text", [0], [1]), *batches("captioning", [0, 1], [2, 3])]
    whole = [*batches("masked_text", [0, 1]), *batches("captioning", [0, 1, 2, 3])]
    assert_equal(gradients(tmp_path / "a", mixed), gradients(tmp_path / "b", whole))


def one_of_two(fabric, folder, task):
    """One process: its share of the samples, in two micro-batches."""
    torch.set_num_threads(1)
    own = ([0], [1]) if fabric.global_rank == 0 else ([2], [3])
    found = gradients(Path(folder), batches(task, *own), fabric, devices=2)
    loss = fabric.all_reduce(found.pop("loss"))
    if fabric.global_rank == 0:
        save_file({**found, "loss": loss}, Path(folder) / "found.safetensors")


@pytest.mark.filterwarnings("ignore")
def test_two_processes_that_accumulate_are_the_same_as_one_large_batch(tmp_path):
    folder = tmp_path / "pair"
    launch(
        make_fabric(tiny_recipe(folder, devices=2).training), one_of_two, str(folder), "masked_code"
    )
    found = load_file(folder / "found.safetensors")
    assert_equal(found, gradients(tmp_path / "one", batches("masked_code", [0, 1, 2, 3])))

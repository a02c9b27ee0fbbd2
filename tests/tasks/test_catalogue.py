"""Every task of the catalogue on the real pack: a finite loss, and a gradient for exactly what it
activates."""

import pickle
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from every_task import recipe

from skillweave.batch import Batch
from skillweave.data.mixture import Mixture
from skillweave.data.sources import Source
from skillweave.data.sources.base import MemoryTable
from skillweave.model.model import Model
from skillweave.tasks import TASKS
from skillweave.tasks.dataset import TaskDataset, stable_order
from skillweave.tasks.predictions import encode_candidates
from skillweave.tasks.resolve import ResolvedRecipe, resolve


@cache
def resolved() -> ResolvedRecipe:
    return resolve(recipe(*TASKS))


@cache
def dataset(name: str) -> TaskDataset:
    return resolved().dataset(name, "train")


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(resolved().model, resolved().assets).train()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_loss_and_gradients(name: str, model: Model) -> None:
    data = dataset(name)
    examples = [data.examples(i)[0] for i in range(5)]
    batch = data.collate(examples, rng=np.random.default_rng(0))
    model.zero_grad()
    out = model(batch)
    assert torch.isfinite(out.loss)
    out.loss.backward()
    found = {n for n, p in model.named_parameters() if p.grad is not None}
    assert found == set(model.active_parameters(name))
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_data_workers_need_not_be_forked(name: str) -> None:
    # `spawn` and `forkserver` send the mixture to a worker as a pickle.
    config = recipe(name)
    mixture = Mixture({name: dataset(name)}, config.training, config.tasks)
    sent = pickle.loads(pickle.dumps(mixture))
    here, there = mixture[0], sent[0]
    assert here.keys == there.keys and here.layout == there.layout
    assert all(torch.equal(here.labels[label], there.labels[label]) for label in here.labels)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_parts_of_a_batch_weighted_by_their_terms_have_its_gradient(name: str) -> None:
    if resolved().tasks[name].compares_samples and TASKS[name].candidates is None:
        pytest.skip("negatives come from the batch itself")
    torch.manual_seed(0)
    model = Model(resolved().model, resolved().assets).double().eval()
    data = dataset(name)
    candidates = encode_candidates(model, data.candidate_batches())
    examples = [data.examples(i)[0] for i in range(6)]
    whole, *parts = (
        as_float64(data.collate(part))
        for part in (examples, examples[:1], examples[1:4], examples[4:])
    )
    names = model.active_parameters(name)
    parameters = [model.get_parameter(one) for one in names]
    terms = model.loss_terms(whole)
    for batch in (whole, *parts):
        scales = {one: count / terms[one] for one, count in model.loss_terms(batch).items()}
        model(batch, candidates=candidates, loss_scales=scales).loss.backward()
        if batch is whole:
            expected = [p.grad for p in parameters]
            model.zero_grad()
    for one, parameter, gradient in zip(names, parameters, expected, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9, msg=one)


def as_float64(batch: Batch) -> Batch:
    inputs = tuple(x.double() if x.is_floating_point() else x for x in batch.inputs)
    labels = {k: x.double() if x.is_floating_point() else x for k, x in batch.labels.items()}
    return replace(batch, inputs=inputs, labels=labels)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_evaluation_takes_every_sample_once_in_a_fixed_order(name: str) -> None:
    batches: list[Batch] = list(dataset(name).batches(7))
    # parts of a sample, such as a picture with its own and with another text, share its key
    keys = list(dict.fromkeys(key for b in batches for key in b.keys))
    skipped = [s.key for b in batches for s in b.skipped]
    every = [dataset(name).key(i) for i in range(len(dataset(name)))]
    assert sorted(keys + skipped) == sorted(every)
    first = dict.fromkeys(k for b in dataset(name).batches(3, limit=9) for k in b.keys)
    assert list(first) == keys[:9]
    assert all(
        torch.equal(a.nan_to_num(), b.nan_to_num())  # padding may be NaN
        for a, b in zip(batches[0].inputs, next(dataset(name).batches(7)).inputs, strict=True)
    )


def test_mixture_of_all(model: Model) -> None:
    datasets = {name: resolved().dataset(name, "train", training=True) for name in TASKS}
    mixture = Mixture(datasets, resolved().recipe.training, resolved().recipe.tasks)
    for i in range(len(mixture)):
        assert torch.isfinite(model(mixture[i]).loss)


def test_all_tasks_share_their_assets() -> None:
    assert set(resolved().assets) == {
        "text_tokenizer.json",
        "sound_units.safetensors",
        "visual_tokens.safetensors",
    }
    assert set(resolved().tasks) == set(resolved().model.tasks) == set(TASKS)


def test_orders_do_not_depend_on_the_order_of_files() -> None:
    keys = [f"k{i}" for i in range(20)]
    shuffled = keys[7:] + keys[:7]
    assert [keys[i] for i in stable_order(keys)] == [shuffled[i] for i in stable_order(shuffled)]


def test_samples_without_a_group_share_no_batch_for_it() -> None:
    cells = ["a", None, "a", float("nan"), "", 1]
    rows = MemoryTable("x", [{"key": str(i), "g": cell} for i, cell in enumerate(cells)])
    config = SimpleNamespace(batch_by="g")
    data = TaskDataset(None, config, "train", Source(rows, range(6), {"g": "g"}), None, 8)
    groups = data.group_ids().tolist()
    assert groups[0] == groups[2] and len(set(groups)) == 5

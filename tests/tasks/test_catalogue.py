"""Every task of the catalogue on the real pack: a finite loss, and a gradient for exactly what it
activates."""

from functools import cache

import numpy as np
import pytest
import torch
from every_task import recipe

from skillweave.batch import Batch
from skillweave.data.mixture import Mixture
from skillweave.model.model import Model
from skillweave.tasks import TASKS
from skillweave.tasks.dataset import TaskDataset, stable_order
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
def test_evaluation_takes_every_sample_once_in_a_fixed_order(name: str) -> None:
    batches: list[Batch] = list(dataset(name).batches(7))
    keys = [key for b in batches for key in b.keys]
    skipped = [s.key for b in batches for s in b.skipped]
    every = [dataset(name).key(i) for i in range(len(dataset(name)))]
    assert sorted(keys + skipped) == sorted(every)
    assert [k for b in dataset(name).batches(3, limit=9) for k in b.keys] == keys[:9]
    assert all(
        torch.equal(a, b)
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

"""What fits into memory: refused, told, and found. What a step takes is tested in `planning`."""

from pathlib import Path

import pytest
import torch
import yaml
from every_task import recipe

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.config.training import TrainingConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolve
from skillweave.training import memory
from skillweave.training.memory import AUTO_SHARE, MemoryCheck

CPU = torch.device("cpu")
NAME = "text_classification"


def described() -> dict:
    """A recipe that reads poems of any length."""
    found = recipe(NAME).model_dump(mode="json")
    found["model"]["streams"]["text"]["max_length"] = 300
    return found


@pytest.fixture(scope="module")
def parts():
    ready = resolve(RecipeConfig.parse(described()))
    return Model(ready.model, ready.assets), {NAME: ready.dataset(NAME, "train", training=True)}


def checker(parts, monkeypatch, free, **training):
    monkeypatch.setattr(memory, "free_memory", lambda _: free)
    return MemoryCheck(*parts, TrainingConfig(steps=1, **training), CPU)


def needs(parts, monkeypatch, samples):
    """Of a batch of ordinary samples, and of the longest ones."""
    check = checker(parts, monkeypatch, 2**40)
    found = check.examples(NAME)
    ordinary, largest = found[len(found) // 2], found[0]
    return [check.need(NAME, check._batch(NAME, [one], samples)) for one in (ordinary, largest)]


def test_what_cannot_fit_is_refused_and_what_may_not_is_told(parts, monkeypatch):
    ordinary, largest = needs(parts, monkeypatch, 64)
    assert ordinary.total < largest.total
    with pytest.raises(ConfigError, match=r"lower tasks\.text_classification\.batch_size"):
        checker(parts, monkeypatch, ordinary.total - 1).check({NAME: 64})
    told = checker(parts, monkeypatch, largest.total - 1).check({NAME: 64})
    assert "64 samples" in told and "GB are free" in told
    assert not checker(parts, monkeypatch, 2 * largest.total).check({NAME: 64})
    assert not checker(parts, monkeypatch, None).check({NAME: 64})


def test_held_memory_is_gradients_and_state_by_hand(parts, monkeypatch):
    model, datasets = parts
    trained = sum(p.numel() for p in model.parameters())
    active = sum(model.get_parameter(n).numel() for n in model.active_parameters(NAME))
    (one, _) = needs(parts, monkeypatch, 4)
    assert one.held == round(memory.MARGIN * (8 * trained + 4 * active + memory.KERNELS))
    check = checker(parts, monkeypatch, 2**40, gradient_accumulation_steps=2)
    twice = check.need(NAME, datasets[NAME].collate(check.examples(NAME)[:1]))
    assert twice.held == round(memory.MARGIN * (8 * trained + 8 * active + memory.KERNELS))


def test_the_largest_batch_that_fits_is_found(parts, monkeypatch):
    _, at_forty = needs(parts, monkeypatch, 40)
    check = checker(parts, monkeypatch, round(1.001 * at_forty.total / AUTO_SHARE["cpu"]))
    assert check.batch_size(NAME, 4096) == 40
    assert check.batch_size(NAME, 7) == 7
    with pytest.raises(ConfigError, match="batch_size: auto"):
        checker(parts, monkeypatch, 1000).batch_size(NAME, 4096)


def test_nothing_is_traced_where_memory_is_plenty(parts, monkeypatch):
    check = checker(parts, monkeypatch, 2**40)
    monkeypatch.setattr(check, "need", None)
    assert not check.check({NAME: 8})


def test_a_run_stores_the_batch_size_that_it_found(tmp_path: Path):
    content = described()
    content["output"], content["training"]["steps"] = str(tmp_path / "run"), 1
    content["tasks"][NAME]["batch_size"] = "auto"
    parsed = RecipeConfig.parse(content)
    folder = sw.train(parsed, quiet=True)
    stored = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert stored["tasks"][NAME]["batch_size"] == 24  # all of the 24 training samples
    assert sw.train(parsed, resume=True, quiet=True) == folder


def test_free_memory_is_known_on_linux():
    assert 0 < memory.free_memory(CPU) < 2**50

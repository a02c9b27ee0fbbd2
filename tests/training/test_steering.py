"""Weights steered by validation and by interference: hand-calculated factors, and exact resuming."""

import json
import math
import os
import signal
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import make_run

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.config.training import SteeringConfig, TrainingConfig
from skillweave.recipe import RecipeConfig, read_recipe
from skillweave.training.errors import Interrupted
from skillweave.training.steering import Steering, stored_changes
from skillweave.training.trainer import Trainer

STEPS = 10


def steering(**settings: object) -> Steering:
    return Steering(SteeringConfig.parse({"by": "validation", "delay": 4, **settings}), ["a", "b"])


def test_the_task_that_learns_faster_gets_more_steps() -> None:
    """a: loss 2 → 1, gain log 2; b: 1 → 1, gain 0. The factors are exp(± log 2 / 2) = √2, 1 / √2."""
    steered = steering()
    assert steered.by_validation(10, {"a": 2.0, "b": 1.0}) is None
    change = steered.by_validation(20, {"a": 1.0, "b": 1.0})
    assert change is not None and change.first == 24
    assert change.factors == pytest.approx((math.sqrt(2), 1 / math.sqrt(2)))
    # b overfits: log 1 - log 4; a stays: the difference is log 4, half of it each way
    change = steered.by_validation(30, {"a": 1.0, "b": 4.0})
    assert change is not None
    assert change.factors == pytest.approx((2 * math.sqrt(2), 1 / (2 * math.sqrt(2))))
    assert [found.first for found in stored_changes(steered.state)] == [24, 34]
    assert stored_changes(steered.state)[1] == change


def test_factors_have_bounds_and_failures_change_nothing() -> None:
    steered = steering(strength=100, most=3)
    steered.by_validation(1, {"a": 1.0, "b": 1.0})
    change = steered.by_validation(2, {"a": 0.5, "b": 1.0})
    assert change is not None and change.factors == pytest.approx((3, 1 / 3))
    # b could not be validated: a alone is as good as the mean
    change = steered.by_validation(3, {"a": 0.1, "b": math.inf})
    assert change is not None and change.factors == pytest.approx((3, 1 / 3))


def test_the_task_that_helps_others_gets_more_steps() -> None:
    """The mean effect of a on b is 0.3, and of b on a -0.6; 5 counts as 1."""
    estimates = {
        "one": {"a": {"b": -0.2}, "b": {"a": 0.3}},
        "two": {"a": {"b": -1.0}, "b": {"a": 0.3}},
    }
    change = steering(strength=2).by_interference(7, estimates)
    assert change is not None and change.first == 11
    assert change.factors == pytest.approx((math.exp(0.6), math.exp(-1.2)))
    change = steering().by_interference(7, {"one": {"b": {"a": 5.0}}})
    assert change is not None and change.factors == pytest.approx((math.e, 1))
    assert steering().by_interference(7, {}) is None


def test_the_delay_covers_what_workers_prepare() -> None:
    settings = {"steps": 5, "workers": 4, "mixture": {"steering": {"delay": 3}}}
    with pytest.raises(ConfigError, match=r"steering\.delay.*8 steps"):
        TrainingConfig.parse(settings)
    TrainingConfig.parse({**settings, "gradient_accumulation_steps": 3})
    with pytest.raises(ConfigError, match=r"needs training\.interference"):
        TrainingConfig.parse({"steps": 5, "mixture": {"steering": {"by": "interference"}}})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("steering") / "made") / "recipe.yaml"


def recipe(source: Path, output: Path, by: str, workers: int = 0) -> RecipeConfig:
    whole = read_recipe(
        source,
        [
            f"output={output}",
            f"training.steps={STEPS}",
            "training.accelerator=cpu",
            "training.log_every=2",
            "training.validate_every=3",
            f"training.workers={workers}",
            "training.optimizer.learning_rate=0.01",
            "training.interference={every: 1}",
            f"training.mixture.steering={{by: {by}, strength: 5, delay: 4, every: 3}}",
        ],
    )
    tasks = {name: whole.tasks[name] for name in ("text_classification", "text_to_image")}
    return whole.model_copy(update={"tasks": tasks})


def lines(folder: Path) -> list[dict[str, object]]:
    text = (folder / "metrics.jsonl").read_text()
    kept = [json.loads(line) for line in text.splitlines()]
    return [line for line in kept if line["kind"].startswith("steering")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("by", ["validation", "interference"])
def test_a_steered_run_resumes_exactly(source: Path, tmp_path: Path, by: str) -> None:
    """It is stopped after a change was decided and before it takes effect."""
    whole = sw.train(recipe(source, tmp_path / "whole", by), quiet=True)
    update = Trainer.update

    def stopping(self: Trainer, batches: object) -> int:
        if self.state.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, batches)

    with patch.object(Trainer, "update", stopping), pytest.raises(Interrupted):
        sw.train(recipe(source, tmp_path / "cut", by), quiet=True)
    assert len(lines(tmp_path / "cut")) >= 1
    sw.train(recipe(source, tmp_path / "cut", by, workers=2), resume=True, quiet=True)
    assert lines(whole) == lines(tmp_path / "cut") != []
    one, other = (load_file(run / "last/model.safetensors") for run in (whole, tmp_path / "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)

"""A run with the features of a frozen backbone on disk is the run without them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbones import RESNET
from safetensors.torch import load_file

from skillweave.config import ConfigError
from skillweave.data.feature_store import FeatureStore
from skillweave.recipe import RecipeConfig
from skillweave.training import train
from skillweave.training.run import fill_feature_cache


def recipe(
    folder: Path,
    cache: Path | None,
    backbone: dict[str, Any] | None = None,
    augment: float = 0,
    **training,
) -> RecipeConfig:
    """A few steps of classification of emoji by regions of a ResNet."""
    resnet = {"kind": "resnet_regions", "config": RESNET, "grid": 2, **(backbone or {})}
    return RecipeConfig.parse({
        "output": str(folder),
        "model": {
            "width": 8,
            "streams": {"image": {"size": 32, "backbone": resnet}},
            "encoder": {"layers": 1, "heads": 2, "feed_forward": 16},
        },
        "tasks": {"image_classification": {
            "data": {"path": "pack:emoji", "columns": {"label": "category"}, "limit": 40},
            "batch_size": 8,
            "augment": {"colour": augment},
        }},
        "training": {
            "steps": 5, "threads": 1, "accelerator": "cpu", "log_every": 1, "validation_samples": 8,
            "feature_cache": cache and {"path": str(cache)}, **training,
        },
    })  # fmt: skip


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if key == "loss"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_is_the_same_with_and_without_the_cache(tmp_path: Path, workers: int) -> None:
    plain = train(recipe(tmp_path / "plain", None), quiet=True)
    cache = tmp_path / "cache"
    runs = [
        train(recipe(tmp_path / name, cache, workers=workers), quiet=True)
        for name in ("filling", "filled")
    ]
    expected = load_file(plain / "last" / "model.safetensors")
    assert len(losses(plain)) == 6  # of five steps and a validation
    for run in runs:
        np.testing.assert_allclose(losses(run), losses(plain), rtol=1e-5)
        found = load_file(run / "last" / "model.safetensors")
        assert found.keys() == expected.keys()
        for name, x in found.items():
            torch.testing.assert_close(x, expected[name], atol=1e-5, rtol=1e-4)
    assert losses(runs[0]) == losses(runs[1])
    assert len(FeatureStore(cache, 2**40)) > 30


def test_filling_first_leaves_nothing_to_compute(tmp_path: Path) -> None:
    config = recipe(tmp_path / "run", tmp_path / "cache")
    filled = [*fill_feature_cache(config, torch.device("cpu"), 7)][-1]
    stored = len(FeatureStore(tmp_path / "cache", 2**40))
    assert filled.done == filled.total and filled.computed == stored > 30 and not filled.broken
    again = [*fill_feature_cache(config, torch.device("cpu"), 7)][-1]
    assert again.computed == 0
    train(config, quiet=True)
    assert len(FeatureStore(tmp_path / "cache", 2**40)) == stored


def test_other_weights_and_other_pixels_have_features_of_their_own(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def computed(config: RecipeConfig) -> int:
        return [*fill_feature_cache(config, torch.device("cpu"))][-1].computed

    first = computed(recipe(tmp_path / "run", cache))
    assert computed(recipe(tmp_path / "run", cache, seed=1)) == first  # random weights
    assert computed(recipe(tmp_path / "run", cache, {"grid": 4})) == first
    assert computed(recipe(tmp_path / "run", cache)) == 0


def test_an_interrupted_run_resumes(tmp_path: Path) -> None:
    whole = train(recipe(tmp_path / "whole", tmp_path / "cache", checkpoint_every=2), quiet=True)
    cut = train(recipe(tmp_path / "cut", tmp_path / "cache", checkpoint_every=2), quiet=True)
    shutil.rmtree(cut / "checkpoints" / "step-00000005")
    train(recipe(cut, tmp_path / "cache", checkpoint_every=2), resume=True, quiet=True)
    files = [run / "last" / "model.safetensors" for run in (whole, cut)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("backbone", "augment", "told"),
    [({"frozen": False}, 0, "is trained"), ({}, 0.1, "augment changes pictures at random")],
)
def test_features_that_change_are_not_cached(
    tmp_path: Path, backbone: dict[str, Any], augment: float, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        train(recipe(tmp_path / "run", tmp_path / "cache", backbone, augment), quiet=True)

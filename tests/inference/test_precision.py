"""Inference runs in the precision that the model was trained in, which is saved with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_run import save_run

import skillweave as sw
from skillweave.evaluation.evaluator import predict_dataset
from skillweave.inference import open_run
from skillweave.tasks.predictions import evaluating

TASK = "text_classification"
TEXTS = ["so good", "so bad very bad", "very good"]


@pytest.fixture(scope="module")
def half(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as `run`, trained in bf16."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    training = recipe["training"] | {"precision": "bf16"}
    output = str(tmp_path_factory.mktemp("half") / "run")
    return save_run({**recipe, "training": training, "output": output})


def test_answers_and_vectors_are_those_of_autocast(run: Path, half: Path) -> None:
    whole, found = sw.Predictor(run), sw.Predictor(half)
    assert whole.model.config.precision == "float32" and found.model.config.precision == "bf16"
    for name, weight in found.model.state_dict().items():
        assert weight.dtype is torch.float32 and weight.equal(whole.model.state_dict()[name])
    exact, answers = sw.predict(whole, TASK, TEXTS), sw.predict(found, TASK, TEXTS)
    with torch.autocast("cpu", torch.bfloat16):
        expected = sw.predict(whole, TASK, TEXTS)
    assert answers == expected != exact
    media = {"image": [run.parent / "data" / "test-0.png"]}
    vectors, precise = (sw.encode(one, "text_to_image", **media) for one in (found, whole))
    assert vectors.dtype == np.float32 and not np.array_equal(vectors, precise)
    np.testing.assert_allclose(vectors, precise, atol=0.05)


def test_every_family_is_measured_in_bf16(half: Path) -> None:
    model, recipe = open_run(half)
    for name in recipe.tasks:
        dataset = recipe.dataset(name, "test")
        found = predict_dataset(model, dataset, dataset.batches(6))
        values = [x for x in vars(found).values() if isinstance(x, np.ndarray)]
        assert all(np.isfinite(x).all() for x in values) and len(found.keys) == 6


def test_the_mode_and_the_precision_are_put_back(half: Path) -> None:
    model = sw.load(half).train()
    with evaluating(model):
        assert torch.is_autocast_enabled("cpu") and torch.is_inference_mode_enabled()
        assert not model.training
    assert not torch.is_autocast_enabled("cpu") and model.training

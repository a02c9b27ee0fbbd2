"""Predictions at positions: labels in the order of the encoder's flat tokens, also with two spans in
a pass, and the figures of masked predictions by hand."""

import math

import numpy as np
import pytest
import torch
from tiny_run import make_run

from skillweave.evaluation.evaluator import predict_dataset
from skillweave.inference import open_run
from skillweave.metrics import estimate
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks import TASKS
from skillweave.tasks.masked_prediction import MaskedPredictions, frequency_metrics
from skillweave.tasks.resolve import resolve


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("masked"))
    described = open_run(run)[1].recipe.model_dump(mode="json")
    data = described["tasks"]["text_to_code"]["data"]
    described["tasks"] = {"masked_code": {"data": data, "batch_size": 4}}
    described["model"] |= {"tasks": {}, "targets": {}}
    return RecipeConfig.parse(described)


def test_losses_are_those_of_the_samples_alone(recipe):
    ready = resolve(recipe)
    model = Model(ready.model, ready.assets).eval()
    dataset = ready.dataset("masked_code", "test")
    together = predict_dataset(model, dataset, dataset.batches(6))
    alone = predict_dataset(model, dataset, dataset.batches(1))
    assert together.keys == alone.keys
    for sample in range(6):
        mine, its = together.samples == sample, alone.samples == sample
        assert together.labels[mine].tolist() == alone.labels[its].tolist()
        torch.testing.assert_close(
            torch.from_numpy(together.losses[mine]),
            torch.from_numpy(alone.losses[its]),
            atol=1e-4,
            rtol=1e-4,
        )


def test_masked_figures_by_hand():
    losses = np.log([2.0, 2.0, 8.0, 4.0])
    found = MaskedPredictions(
        keys=["a", "b"],
        classes=9,
        labels=np.array([5, 5, 5, 7]),
        losses=losses,
        correct=np.array([True, False, True, False]),
        samples=np.array([0, 0, 1, 1]),
    )
    values, _ = estimate(TASKS["masked_text"].columns(found), 0)
    assert values["perplexity"] == pytest.approx(math.exp(losses.mean()))
    assert values["masked_accuracy"] == 0.5
    # In training 5 and 7 were a quarter each: as unsure as among four. Always 1, the commonest, is
    # never right.
    guess = frequency_metrics(found, np.array([0, 2e6, 0, 0, 0, 1e6, 0, 1e6, 0]))
    assert guess["masked_accuracy"] == 0
    assert guess["perplexity"] == pytest.approx(4, rel=1e-4)
    # A word that training never had counts as a little, of three sizes that which suits best.
    guess = frequency_metrics(found, np.array([0, 1, 0, 0, 0, 0, 0, 1, 0.0]))
    options = [
        (more / (2 + 9 * more)) ** -0.75 * ((1 + more) / (2 + 9 * more)) ** -0.25
        for more in (1, 0.1, 0.01)
    ]
    assert guess["perplexity"] == pytest.approx(min(options))

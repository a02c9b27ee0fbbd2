"""Distillation: the vectors of another model are learned, measured and refused where they are wrong."""

import numpy as np
import pytest
import torch
from every_task import recipe

from skillweave.data.mixture import Mixture
from skillweave.data.processors import BadInput
from skillweave.model.model import Model
from skillweave.tasks import TASKS
from skillweave.tasks.regression import NumberPredictions
from skillweave.tasks.resolve import resolve

NAME = "text_distillation"


def test_loss_is_one_minus_the_cosine() -> None:
    config = recipe(NAME)
    resolved = resolve(config)
    torch.manual_seed(0)
    model = Model(resolved.model, resolved.assets).double().eval()
    batch = Mixture({NAME: resolved.dataset(NAME, "train")}, config.training, config.tasks)[0]
    out = model(batch)
    (vectors,) = out.logits.values()
    ours, theirs = vectors.detach().numpy(), batch.labels["vector"].numpy()
    cosines = [
        float(a @ b) / float(np.sqrt(a @ a) * np.sqrt(b @ b))
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert out.loss.item() == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-9)


def test_chance_is_the_cosine_of_the_mean_vector() -> None:
    references = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    found = NumberPredictions(keys=["a", "b"], references=references, values=references)
    assert TASKS[NAME].chance(found, None)["cosine"] == pytest.approx(0.5**0.5)  # 45 degrees each


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0] * 23, "23 numbers, and the vectors of the model have 24; set `projection`"),
        ([[1.0] * 24], "lists of numbers"),
        ("one two", "not a list of numbers"),
        ([0.0] * 24, "only zeros"),
        ([float("nan")] * 24, "no numbers"),
    ],
)
def test_a_wrong_vector_is_told(vector: object, message: str) -> None:
    resolved = resolve(recipe(NAME))
    data = resolved.dataset(NAME, "train")
    with pytest.raises(BadInput, match=message):
        data.task.entry.example(
            {"key": "a", "text": "a cat", "vector": vector},
            data.context,
            np.random.default_rng(0),
        )

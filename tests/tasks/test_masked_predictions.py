"""Labels of masked prediction are brought into the order of the encoder's flat tokens, also with
two spans in a pass."""

import pytest
import torch
from tiny_run import make_run

from skillweave.evaluation.evaluator import predict_dataset
from skillweave.inference import open_run
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
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

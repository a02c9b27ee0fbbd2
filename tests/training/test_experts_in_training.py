"""Runs log the use of experts by learned gates, and a resumed run logs the same."""

import json
import shutil

from training_recipes import recipe

from skillweave.recipe import RecipeConfig
from skillweave.training import train

SPARSE = {
    "qkv": {"route": "skill"},
    "feed_forward_in": {"route": "attribute", "experts": 4, "noise": 0.125},
    "feed_forward_out": {"route": "token", "experts": 3},
}


def sparse_recipe(folder):
    settings = {"steps": 7, "validate_every": 2, "checkpoint_every": 3, "save_total_limit": 9}
    data = recipe(folder, ("text_classification", "text_to_image"), **settings).model_dump(
        mode="json"
    )
    data["model"]["encoder"]["sparse"] = SPARSE
    return RecipeConfig.parse(data)


def lines(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == "experts"]


def test_a_resumed_run_logs_the_same(tmp_path):
    run = train(sparse_recipe(tmp_path / "run"), quiet=True)
    expected = lines(run)
    sites = ("feed_forward_in", "feed_forward_out")
    assert [(line["step"], line["part"], line["site"]) for line in expected] == [
        (step, "encoder", site) for step in (2, 4, 6, 7) for site in sites
    ]
    spans = {"text_classification": ["text"], "text_to_image": ["text", "image/target"]}
    for line in expected:
        assert {task: list(found) for task, found in line["shares"].items()} == spans
        assert set(line["drift"]) == (set() if line["step"] == 2 else set(spans))
        assert 0 <= line["entropy"] <= 1 and sum(line["utilisation"].values()) > 0.9999
    assert any(value for line in expected for value in line["drift"].values())
    for checkpoint in run.glob("checkpoints/step-*"):
        if checkpoint.name > "step-00000003":
            shutil.rmtree(checkpoint)
    assert lines(train(sparse_recipe(run), resume=True, quiet=True)) == expected

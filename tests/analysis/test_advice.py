"""Each rule on a table made for it; what is not clear gives no proposal."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from tiny_run import MODEL

from skillweave.analysis.advice import advise, undecided
from skillweave.analysis.interference import Interference
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import model_with_tasks

TASKS = ("text_classification", "speech_recognition", "text_to_image")
BLOCKS = ("encoder.blocks.0.attention", "encoder.blocks.3.feed_forward")


def recipe(sparse, **streams):
    model = {
        **MODEL,
        "streams": {**MODEL["streams"], **streams},
        "encoder": {**MODEL["encoder"], "sparse": sparse},
        "targets": {"classification": {}, "ctc": {}, "contrastive": {}},
    }
    tasks = {name: {"data": {"path": "none"}, "weight": 2.0} for name in TASKS}
    parsed = RecipeConfig.parse({"model": model, "tasks": tasks, "training": {"steps": 1}})
    return parsed.model_copy(update={"model": model_with_tasks(parsed)})


DENSE, SKILLS = recipe({}), recipe({"qkv": {"route": "skill"}})


def table(effects, width=0.02, batches=100, against=0.0):
    """`effects`: (block, task i, task j) → figure; the others are 0. Intervals reach `width` to
    both sides."""
    pooled = np.zeros((2, 3, 3))
    for place, value in effects.items():
        pooled[place] = value
    intervals = np.stack([pooled - width, pooled + width], -1)
    ones = np.ones((2, 3, 3), np.int64)
    used = dict.fromkeys(TASKS, batches)
    return Interference(
        TASKS,
        BLOCKS,
        pooled,
        intervals,
        pooled,
        intervals,
        ones * against,
        ones,
        used,
        dict.fromkeys(TASKS, 0),
    )


def kinds(proposals):
    return [proposal.kind for proposal in proposals]


def test_harm_makes_the_linears_of_its_part_conditional():
    (found,) = advise(table({(1, 2, 1): -0.4}), SKILLS)
    assert (found.kind, found.block, found.tasks) == (
        "make conditional",
        BLOCKS[1],
        ("text_to_image", "speech_recognition"),
    )
    assert found.figure == -0.4 and found.interval == pytest.approx((-0.42, -0.38))
    attribute = {"route": "attribute", "experts": 8, "attributes": "extended"}
    places = {"feed_forward_in": attribute, "feed_forward_out": {"route": "follow"}}
    assert yaml.safe_load(found.to_json()["recipe"]) == {"model": {"encoder": {"sparse": places}}}


def test_the_change_is_that_of_the_part_in_which_tasks_harm_each_other():
    encoder = {"layers": 4, "heads": 2, "feed_forward": 32}
    own = recipe({}, image={**MODEL["streams"]["image"], "encoder": encoder})
    blocks = ("stream_encoders.image.blocks.0.attention", "encoder.blocks.3.feed_forward")
    effects = {(0, 2, 1): -0.4, (1, 2, 1): -0.3}
    image, shared = (
        found.recipe["model"] for found in advise(replace(table(effects), blocks=blocks), own)
    )
    assert list(image["streams"]["image"]["encoder"]["sparse"]) == ["qkv", "attention_output"]
    assert list(shared["encoder"]["sparse"]) == ["feed_forward_in", "feed_forward_out"]
    elsewhere = ("targets.pixels.decoder.blocks.0.attention", "embeddings.text")
    assert not advise(replace(table(effects), blocks=elsewhere), own)


def test_harm_in_both_parts_makes_all_linears_conditional_but_those_that_are_sparse_already():
    effects = {(1, 2, 1): -0.4, (0, 2, 1): -0.2}
    (all_four,) = advise(table(effects), DENSE)
    assert list(all_four.recipe["model"]["encoder"]["sparse"]) == ["linears"]
    (three,) = advise(table(effects), SKILLS)
    assert list(three.recipe["model"]["encoder"]["sparse"]) == [
        "attention_output",
        "feed_forward_in",
        "feed_forward_out",
    ]
    assert not advise(table({(1, 2, 1): -0.4}), recipe({"feed_forward": {"route": "skill"}}))


def test_a_task_that_harms_all_others_gets_a_lower_weight():
    found = next(
        p
        for p in advise(table({(0, 1, 0): -0.2, (1, 2, 0): -0.3}), SKILLS)
        if p.kind == "lower the weight"
    )
    # 0.1 · 2 / 0.3: a tenth of the others' gain
    assert found.recipe == {"tasks": {"text_classification": {"weight": 0.67}}}
    assert found.tasks == ("text_to_image", "text_classification")
    severe = next(
        p
        for p in advise(table({(0, 1, 0): -5, (0, 2, 0): -5}), SKILLS)
        if p.kind == "lower the weight"
    )
    assert severe.recipe["tasks"]["text_classification"]["weight"] == 0.5  # no less than a quarter
    assert "lower the weight" not in kinds(advise(table({(0, 1, 0): -0.2, (0, 2, 0): 0.0}), SKILLS))


def test_tasks_that_harm_each_other_are_separated():
    apart = next(
        p for p in advise(table({(1, 0, 1): -0.2, (1, 1, 0): -0.3}), SKILLS) if p.kind == "separate"
    )
    assert apart.recipe["model"]["encoder"]["sparse"]["feed_forward_in"] == {"route": "skill"}
    same = next(
        p for p in advise(table({(1, 0, 2): -0.2, (1, 2, 0): -0.3}), SKILLS) if p.kind == "separate"
    )
    # text in both
    assert same.recipe["model"]["encoder"]["sparse"]["feed_forward_in"] == {
        "route": "task",
        "experts": 3,
    }


def test_tasks_that_help_each_other_stay_together_unless_they_also_harm():
    help_each_other = {(0, 0, 2): 0.3, (0, 2, 0): 0.2}
    (found,) = advise(table(help_each_other), SKILLS)
    assert found.kind == "keep together" and found.recipe == {} and found.to_json()["recipe"] == ""
    assert "keep together" not in kinds(advise(table({**help_each_other, (1, 0, 2): -0.3}), SKILLS))


@pytest.mark.parametrize(
    ("unclear", "told"),
    [
        ({"width": 0.5}, "1 ratio at or below -0.1 whose interval holds 0"),
        ({"batches": 5}, "with fewer than 10 batches"),
        ({"against": 0.6}, ""),
    ],
)
def test_what_is_not_clear_gives_no_proposal(unclear, told):
    made = table({(1, 2, 1): -0.4}, **unclear)
    assert not advise(made, SKILLS)
    assert told in undecided(made)

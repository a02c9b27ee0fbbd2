"""Faults of a configuration: all at once, each with its path and the nearest valid name."""

import copy
from typing import Any

import pytest

from skillweave.components.targets import TARGETS
from skillweave.config import ConfigError, choose, nearest
from skillweave.recipe import RecipeConfig

RECIPE: dict[str, Any] = {
    "model": {"width": 16, "streams": {"text": {}}, "encoder": {"heads": 4}},
    "tasks": {"text_classification": {"data": {"path": "x.csv"}}},
    "training": {"steps": 1},
}


def changed(**changes: Any) -> dict[str, Any]:
    """The recipe with `a__b=value` set at path a.b."""
    data = copy.deepcopy(RECIPE)
    for path, value in changes.items():
        *above, last = path.split("__")
        place = data
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
    return data


def faults_of(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        RecipeConfig.parse(changed(**changes), "recipe.yaml")
    first, *lines = str(error.value).splitlines()
    assert first == f"recipe.yaml: {len(lines)} fault{'s' * (len(lines) != 1)}"
    return [line.removeprefix("  - ") for line in lines]


def test_the_recipe_itself_is_sound() -> None:
    RecipeConfig.parse(RECIPE)


@pytest.mark.parametrize(
    ("path", "nearest_name"),
    [
        ("modle", "model"),
        ("model__widht", "width"),
        ("model__streams__txet", "text"),
        ("model__streams__text__vocabulry", "vocabulary"),
        ("model__streams__text__tokenizer__lowercas", "lowercase"),
        ("model__streams__sound__kernel", "kernels"),
        ("model__encoder__layer", "layers"),
        ("model__encoder__sparse__qvk", "qkv"),
        ("model__encoder__sparse__qkv__exprts", "experts"),
        ("tasks__text_classification__wieght", "weight"),
        ("tasks__text_classification__data__pth", "path"),
        ("tasks__text_classification__augment__shfit", "shift"),
        ("limits__max_pixel", "max_pixels"),
        ("training__setps", "steps"),
        ("training__optimizer__learning_rat", "learning_rate"),
    ],
)
def test_misspelt_keys(path: str, nearest_name: str) -> None:
    expected = f"{path.replace('__', '.')}: unknown key; did you mean {nearest_name!r}?"
    assert faults_of(**{path: {}}) == [expected]


def test_misspelt_keys_of_targets_and_spans() -> None:
    targets = {"mlm": {"modalty": "text"}, "own": {"kind": "contrastive", "temprature": 1}}
    tasks = {
        "t": {"spans": [{"modality": "text", "role": "input", "atention": "full"}], "targets": {}}
    }
    assert set(faults_of(model__targets=targets, model__tasks=tasks)) == {
        "model.targets.mlm.modalty: unknown key; did you mean 'modality'?",
        "model.targets.own.temprature: unknown key; did you mean 'temperature'?",
        "model.tasks.t.spans.0.atention: unknown key; did you mean 'attention'?",
    }


@pytest.mark.parametrize(
    ("path", "value", "where", "nearest_name"),
    [
        ("model__encoder__sparse__qkv__route", "skil", "", "skill"),
        ("model__encoder__sparse__linears__route", "atribute", "", "attribute"),
        ("model__encoder__norm_position", "pst", "", "post"),
        ("model__streams__text__embedding", ["wrd"], ".0", "word"),
        ("model__encoder__sparse__qkv__skills", {"txt": "a"}, ".txt", "text"),
        ("model__targets__x", {"kind": "contrastiv"}, "", "contrastive"),
        ("training__precision", "float16", "", "float32"),
    ],
)
def test_misspelt_values(path: str, value: Any, where: str, nearest_name: str) -> None:
    (fault,) = faults_of(**{path: value})
    assert fault.startswith(f"{path.replace('__', '.')}{where}: unknown value ")
    assert fault.endswith(f"; did you mean {nearest_name!r}?")


def test_misspelt_splits() -> None:
    path = "tasks.text_classification.data.path"
    faults = faults_of(tasks__text_classification__data__path={"trian": "x"})
    assert f"{path}.trian: unknown value 'trian'; did you mean 'train'?" in faults
    assert all(fault.startswith(path) for fault in faults)


def test_nothing_near_lists_what_is_valid() -> None:
    (fault,) = faults_of(model__targets={"qqq": {}})
    assert fault == f"model.targets.qqq: unknown value 'qqq'; valid names: {', '.join(TARGETS)}"


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_are_read_by_the_kind_that_they_say(kind: str) -> None:
    assert TARGETS[kind].model_fields["kind"].default == kind


def test_all_faults_at_once() -> None:
    faults = faults_of(
        modl=1,
        model__widht=2,
        model__encoder__layers="many",
        tasks__text_classification__batch_size=-1,
        training__steps=-1,
        limits__max_bytes=None,
    )
    assert [fault.partition(":")[0] for fault in faults] == [
        "model.encoder.layers",
        "model.widht",
        "tasks.text_classification.batch_size",
        "limits.max_bytes",
        "training.steps",
        "modl",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model__encoder__heads": 5}, "model: width 16 is not a multiple of 5 heads"),
        (
            {"model__encoder__sparse__feed_forward": {"route": "token", "experts": 2, "active": 3}},
            (
                "model.encoder.sparse.feed_forward: active 3 is more than the 2 experts there are;"
                " lower it or add experts"
            ),
        ),
        (
            {"model__encoder__sparse__linears": {"route": "attribute", "experts": 1}},
            (
                "model.encoder.sparse.linears: active 2 is more than the 1 experts there are; lower"
                " it or add experts"
            ),
        ),
        (
            {"model__encoder__sparse": {"qkv": {"route": "follow"}}},
            "model.encoder.sparse: qkv has nothing before it to follow; name the route itself",
        ),
        (
            {"model__encoder__sparse__attention_output": {"route": "follow", "experts": 8}},
            (
                "model.encoder.sparse.attention_output: route 'follow' has no options of its own;"
                " set them where the choice is made"
            ),
        ),
        (
            {"model__encoder__sparse": {"linears": {"route": "task"}, "qkv": {"route": "skill"}}},
            (
                "model.encoder.sparse: linears sets qkv too; give one of them (in a recipe with a"
                " base, `qkv: null` takes it away)"
            ),
        ),
        (
            {
                "model__encoder__sparse": {
                    "feed_forward_in": {"route": "task"},
                    "feed_forward": {"route": "token"},
                }
            },
            (
                "model.encoder.sparse: feed_forward mixes whole feed-forwards, feed_forward_in the"
                " layers inside them; give one of them"
            ),
        ),
        (
            {"model__streams__image": {"size": 12, "patch": 16}},
            "model.streams.image: size 12 is smaller than patch 16",
        ),
        (
            {"model__streams__video": {"frames": 5, "size": 32}},
            "model.streams.video: 5 frames of 32 × 32 cannot be cut into tubelets (3, 16, 16)",
        ),
        (
            {"model__streams__sound": {"kernels": [3, 2]}},
            "model.streams.sound: 2 kernels but 7 strides",
        ),
        ({"model__shared": ["word"]}, "model: shared 'word' needs both a text and a code stream"),
        (
            {"training__epochs": 3},
            "training: give exactly one of steps, epochs or samples, not steps and epochs",
        ),
        ({"training": {}}, "training: give exactly one of steps, epochs or samples, not none"),
        ({"tasks": {}}, "tasks: Dictionary should have at least 1 item after validation, not 0"),
        (
            {"tasks__text_classification__data__fractions": [0.5, 0.2, 0.2]},
            (
                "tasks.text_classification.data: fractions (0.5, 0.2, 0.2) must be at least 0 and"
                " sum to 1"
            ),
        ),
        (
            {"model__streams__text": {"embedding": ["position"]}},
            (
                "model: stream 'text': embedding ['position'] lacks the content that positions are"
                " added to"
            ),
        ),
        (
            {"model__targets": {"mlm": {"modality": "code"}}},
            (
                "model: target 'mlm' is tied to the words of a stream 'code'; add it under"
                " model.streams"
            ),
        ),
    ],
)
def test_impossible_combinations(changes: dict[str, Any], expected: str) -> None:
    assert faults_of(**changes) == [expected]


def test_tasks_that_the_model_cannot_do() -> None:
    spans = [{"modality": "code"}, {"modality": "text"}, {"modality": "image"}]
    tasks = {"t": {"spans": spans, "targets": {"mml": 1, "mlm": 1}}}
    (fault,) = faults_of(
        model__streams__code={}, model__targets={"mlm": {}}, model__tasks=tasks, model__width=15
    )
    assert fault.removeprefix("model: ").split("; ") == [
        "width 15 is not a multiple of 4 heads",
        "task 't' needs a stream 'image'",
        "add it under model.streams",
        "task 't' asks for target 'mml'",
        "did you mean 'mlm'?",
        "target 'mlm' predicts no tokens of 'code', which task 't' masks too",
        "add a target {kind: mlm, modality: code} to the task, or set `shared: [word]`",
    ]


@pytest.mark.parametrize("spans", [{}, {"spans": []}])
def test_a_task_without_a_layout(spans: dict[str, Any]) -> None:
    faults = faults_of(
        model__targets={"mlm": {}}, model__tasks={"t": {"targets": {"mlm": 1}, **spans}}
    )
    assert [fault.partition(",")[0] for fault in faults] == [
        "model.tasks.t.spans: a task without a layout; name its spans"
    ]


def test_nearest_and_choose() -> None:
    assert nearest("aple", ["apple", "pear"]) == "; did you mean 'apple'?"
    assert nearest("x", []) == ""
    assert choose({"a": 1}, "a", "letter") == 1
    with pytest.raises(ConfigError, match=r"unknown letter 'b'; valid names: a$"):
        choose({"a": 1}, "b", "letter")


def test_configurations_cannot_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RecipeConfig.parse(RECIPE).model.width = 8

"""From a recipe as written to one that says everything: what is filled in, and what does not go
together."""

from typing import Any

import pytest
import torch
from every_task import SOURCES, recipe

from skillweave.config import ConfigError
from skillweave.config.layering import merge
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolve, resolved, resolved_task
from skillweave.training.initial_weights import copy_weights, require_alike


def test_what_the_recipe_leaves_open_is_filled_in() -> None:
    run = resolve(recipe("text_classification", "speech_recognition", "text_to_code"))
    assert len(run.model.targets["classification"].classes) >= 2
    source = run.dataset("speech_recognition", "train").source
    transcripts = {c for t in source.column("transcript") for c in t}
    assert set(run.model.targets["ctc"].characters) == transcripts
    assert run.model.streams.text.vocabulary == run.model.streams.code.vocabulary <= 600
    assert run.task("text_classification").classes == run.model.targets["classification"].classes


def test_it_is_deterministic_and_keeps_what_is_resolved() -> None:
    names = ("text_classification", "speech_recognition")
    once = resolve(recipe(*names).model_copy(update={"model": recipe(*names).model}))
    assert resolve(recipe(*names)) == once
    assert resolve(once.recipe, once.assets) == once
    assert resolved(once.recipe, once.assets) == once
    read = RecipeConfig.parse(once.recipe.model_dump(mode="json"))
    assert read == once.recipe and resolved(read, once.assets) == once


TEXT = {"vocabulary": 400, "max_length": 24}
SIDE = {"layers": 1, "heads": 2, "feed_forward": 32}
ENCODER = {"width": 16, "streams": {"text": TEXT}, "encoder": SIDE}
DECODER = {**ENCODER, "target_embedding": {"max_length": 24}, "decoder": SIDE}
LSTM = {**ENCODER, "encoder": {"name": "lstm", "layers": 1, "direction": "separate"}}


@pytest.mark.parametrize(
    ("model", "task", "more"),
    [
        (ENCODER, "language_modelling", {"target": "lm"}),
        (ENCODER, "language_modelling", {}),
        (DECODER, "language_modelling", {"target": "lm"}),
        (LSTM, "language_modelling", {"target": "bilm"}),
        (ENCODER, "text_denoising", {"target": "lm"}),
        (DECODER, "text_denoising", {"target": "lm"}),
        (DECODER, "text_to_text", {}),
        (DECODER, "text_regression", {"decoder": True}),
        (DECODER, "multiple_choice", {"choices": 3}),
        (ENCODER, "text_prompting", {"template": "{text} is [MASK]"}),
        (ENCODER, "text_similarity", {}),
        (ENCODER, "sequence_labelling", {}),
        (ENCODER, "text_multi_label", {}),
        (ENCODER, "masked_text_pair", {}),
        (ENCODER, "text_naming", {}),
    ],
)
def test_a_resolved_recipe_is_the_same_when_it_is_read_from_a_run(
    model: dict[str, Any], task: str, more: dict[str, Any]
) -> None:
    tasks = {task: {"data": {**SOURCES[task], "limit": 40}, **more}}
    once = resolve(RecipeConfig.parse({"model": model, "tasks": tasks, "training": {"steps": 1}}))
    read = RecipeConfig.parse(once.recipe.model_dump(mode="json"))
    assert read == once.recipe
    assert resolved(read, once.assets) == resolve(read, once.assets) == once


def test_the_stream_of_a_model_that_reads_from_left_to_right_is_causal() -> None:
    tasks = {"language_modelling": {"data": SOURCES["language_modelling"], "target": "lm"}}
    data = {"model": ENCODER, "tasks": tasks, "training": {"steps": 1}}
    assert resolve(RecipeConfig.parse(data)).model.streams.text.causal
    tasks["masked_text"] = {"data": SOURCES["masked_text"]}
    assert not resolve(RecipeConfig.parse(data)).model.streams.text.causal


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_a_language_model_of_transcripts_learns_from_those_that_are_trained_on(
    fraction: float,
) -> None:
    data = recipe("speech_recognition").model_dump(mode="json")
    data["model"]["targets"] = {"ctc": {"language": 2}}
    data["tasks"]["speech_recognition"]["data"]["fraction"] = fraction
    run = resolve(RecipeConfig.parse(data))
    lines = run.assets["transcripts.txt"].decode().splitlines()
    assert lines == list(run.dataset("speech_recognition", "train").source.column("transcript"))


def test_streams_and_targets_that_no_task_uses_are_left_out() -> None:
    """As when `only` makes a modality-specific model of a mixture's recipe."""
    data = recipe("speech_recognition").model_dump(mode="json")
    data["model"]["targets"]["mlm"] = {}
    model = resolve(RecipeConfig.parse(data)).model
    assert list(model.streams.present()) == ["sound"] and not model.shared
    assert set(model.targets) == {"ctc"} and set(model.tasks) == {"speech_recognition"}


def test_tasks_are_asked_for_by_name() -> None:
    run = resolve(recipe("text_classification"))
    with pytest.raises(ConfigError, match="unknown task 'text_clas'; did you mean"):
        run.task("text_clas")
    with pytest.raises(ConfigError, match="unknown task 'text_clas'; did you mean"):
        run.dataset("text_clas", "test")
    with pytest.raises(ConfigError, match="unknown task 'text_clas'; did you mean"):
        resolved_task(run.model, "text_clas")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "text_to_imge"},
            "unknown task kind 'text_to_imge'; did you mean 'text_to_image'",
        ),
        (
            {"target": "ctc"},
            (
                r"tasks\.text_to_image\.target: 'ctc' is of kind 'ctc', but the task needs"
                r" 'contrastive'"
            ),
        ),
        (
            {"batch_size": 1},
            r"tasks\.text_to_image\.batch_size: 1, but contrastive learning compares samples",
        ),
        (
            {"data": {"path": "pack:emoji", "columns": {"text": "nam_zh"}}},
            r"text_to_image\.data: .*did you mean 'name_zh'",
        ),
    ],
)
def test_tasks_that_cannot_be(changes: dict[str, object], message: str) -> None:
    data = recipe("text_to_image").model_dump(mode="json")
    data["model"]["targets"]["ctc"] = {"characters": ["x"]}
    data["tasks"]["text_to_image"] |= changes
    with pytest.raises(ConfigError, match=message):
        resolve(RecipeConfig.parse(data))


def test_chunks_are_for_tasks_that_compare_vectors() -> None:
    for name, fits in (("text_to_image", True), ("text_classification", False)):
        data = recipe(name).model_dump(mode="json")
        data["tasks"][name]["chunk_size"] = 4
        if fits:
            resolve(RecipeConfig.parse(data))
            continue
        with pytest.raises(ConfigError, match=r"chunk_size is for contrastive learning"):
            resolve(RecipeConfig.parse(data))


def test_streams_that_a_task_lacks() -> None:
    data = recipe("text_to_image").model_dump(mode="json")
    del data["model"]["streams"]["image"], data["model"]["targets"]["masked_image_token"]
    with pytest.raises(
        ConfigError, match="task 'text_to_image' needs a stream 'image'; add it under"
    ):
        resolve(RecipeConfig.parse(data))


def test_tasks_of_one_classifier_have_a_label_in_common() -> None:
    both = recipe("text_classification", "image_classification").model_dump(mode="json")
    both["tasks"]["image_classification"]["target"] = "classification"
    fault = (
        r"model\.targets\.classification: the tasks 'text_classification' and"
        r" 'image_classification' share it and have no label in common .*"
        r"`target: image_classification` under tasks\.image_classification"
    )
    with pytest.raises(ConfigError, match=fault):
        resolve(RecipeConfig.parse(both))


ROWS = 900
"""More rows in the word embeddings than the tokenizer has tokens, as in Whisper."""


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("text_classification", {"streams": {"text": {"vocabulary": ROWS}}}),
        ("code_to_text", {"target_embedding": {"vocabulary": ROWS}}),
        (
            "speech_to_text",
            {
                "streams": {"text": None},
                "shared": [],
                "target_embedding": {"vocabulary": ROWS, "tied": False},
            },
        ),
    ],
)
def test_tuning_keeps_all_rows_of_a_word_embedding(task: str, changes: dict[str, Any]) -> None:
    """Wherever the words are: in a text stream, shared with code, or in the decoder alone."""
    data = recipe(task).model_dump(mode="json")
    data["model"] = merge(data["model"], changes)
    first = resolve(RecipeConfig.parse(data))
    described = first.model.model_dump(mode="json")
    for reader in (*described["streams"].values(), described["target_embedding"] or {}):
        if "vocabulary" in reader:
            reader["vocabulary"] = ROWS
    base = Model(ModelConfig.parse(described), first.assets)
    again = resolve(RecipeConfig.parse(data), base.assets, base.config)
    tuned = Model(again.model, again.assets)
    report = copy_weights(tuned, base.state_dict(), "base")
    assert len(report.splitlines()) == 1  # nothing is new, nothing is unused
    for name, x in base.state_dict().items():
        assert torch.equal(tuned.state_dict()[name], x)


def test_labels_that_a_base_knows_keep_their_order() -> None:
    """A row of the base's weights stands for each label, so another order would give each label the
    weights of another one."""
    names = ("text_classification", "speech_recognition")
    first = resolve(recipe(*names))
    classes, characters = (
        first.model.targets["classification"].classes,
        first.model.targets["ctc"].characters,
    )
    changes = {
        "classification": {"kind": "classification", "classes": classes[::-1]},
        "ctc": {"kind": "ctc", "characters": [*characters[::-1], "ʘ"]},
    }
    described = merge(first.model.model_dump(mode="json"), {"targets": changes})
    again = resolve(recipe(*names), first.assets, ModelConfig.parse(described))
    assert len(classes) > 1
    assert again.model.targets["classification"].classes == classes[::-1]
    assert again.model.targets["ctc"].characters == [*characters[::-1], "ʘ"]
    # an alphabet that lacks a character is no use, and other classes are other classes
    changes["ctc"] = {"kind": "ctc", "characters": characters[:0:-1]}
    changes["classification"] = {"kind": "classification", "classes": ["ʘ", *classes[1:]]}
    described = merge(first.model.model_dump(mode="json"), {"targets": changes})
    base = ModelConfig.parse(described)
    other = resolve(recipe(*names), first.assets, base)
    assert other.model.targets["classification"].classes == classes
    assert other.model.targets["ctc"].characters == characters
    with pytest.warns(UserWarning, match=r"targets\.classification begins with the weights of oth"):
        require_alike(other.model, base, "base")

"""Tasks of one formulation: their examples, what causal text may see, class names, and the recipe
that trains them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import STREAMS, TARGETS, random_examples, randomise, tiny_config

from skillweave.batch import IGNORE, Batch, Condition, Layout, Modality, Role
from skillweave.config import ConfigError
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig, find_recipe, read_recipe
from skillweave.tasks import TASKS
from skillweave.tasks.resolve import resolve

MODEL = {
    "width": 16,
    "streams": {"text": {"vocabulary": 400, "max_length": 12}, "image": {"size": 16, "patch": 8}},
    "encoder": {"layers": 1, "heads": 2, "feed_forward": 32},
    "targets": {"similarity": {"negatives": 5}},
}
EMOJI = {"path": "pack:emoji", "limit": 30}
NAMING = {"data": {**EMOJI, "columns": {"label": "category"}}, "batch_size": 4}
CAPTIONING = {"data": {**EMOJI, "columns": {"text": ["name_zh", "name_en"]}}, "batch_size": 4}


def recipe(**tasks: dict[str, Any]) -> RecipeConfig:
    return RecipeConfig.parse(
        {"model": MODEL, "tasks": tasks, "training": {"steps": 1, "threads": 1}}
    )


def caption(model: Model, ids: list[list[int]]) -> Batch:
    """Pictures that are always the same, with these texts behind them."""
    torch.manual_seed(1)
    examples = random_examples("captioning", [[5, len(row)] for row in ids], model.config)
    texts = [
        replace(e.spans[1], data=torch.tensor(row)) for e, row in zip(examples, ids, strict=True)
    ]
    examples = [
        replace(e, spans=(e.spans[0], text)) for e, text in zip(examples, texts, strict=True)
    ]
    layout = Layout("caption", TASKS["image_captioning"].spans).only(0)
    return collate(layout, examples, model.config.streams, 4)


@pytest.fixture(scope="module", params=["skill", "attribute", "token", "context"])
def captioner(request: pytest.FixtureRequest) -> Model:
    task = TASKS["image_captioning"]
    tasks = {
        "caption": {
            "spans": [s.model_dump(mode="json") for s in task.span_configs],
            "targets": {"similarity": 1.0},
        }
    }
    sparse = {
        "linears": {"route": request.param, **({} if request.param == "skill" else {"experts": 4})}
    }
    config = tiny_config(
        streams=STREAMS,
        targets={**TARGETS, "similarity": {}},
        tasks=tasks,
        encoder={"sparse": sparse},
    )
    model = Model(config).double().eval()
    randomise(model)
    return model


@given(position=st.integers(1, 6), length=st.integers(2, 7))
def test_a_word_changes_nothing_before_it(captioner: Model, position: int, length: int) -> None:
    """Neither words on its left nor the picture; but what stands at its own place."""
    position = min(position, length - 1)
    words = [6, 9, 12, 15, 18, 21, 24][:length]
    changed = [*words[:position], words[position] + 1, *words[position + 1 :]]
    before, after = (
        captioner._encode(caption(captioner, [row, [7, 8, 9]]))[0][0].padded()
        for row in (words, changed)
    )
    pictures = 5
    torch.testing.assert_close(
        after[0, : pictures + position], before[0, : pictures + position], rtol=1e-9, atol=1e-9
    )  # of a routed token, the expert's product may have other rows
    torch.testing.assert_close(after[1], before[1], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(after[0, pictures + position], before[0, pictures + position])


def test_every_position_predicts_the_next_word_up_to_the_end() -> None:
    dataset = resolve(recipe(image_captioning=CAPTIONING)).dataset("image_captioning", "train")
    (example,) = dataset.examples(0)
    picture, text = example.spans
    labels, processor = example.token_labels["label_ids"], dataset.context.processors[Modality.TEXT]
    assert text.data[0] == processor.cls and text.data[-1] == processor.separator
    assert (labels[: picture.length] == IGNORE).all() and labels[-1] == IGNORE
    assert labels[picture.length : -1].tolist() == text.data[1:].tolist()


def test_training_batches_have_candidates_and_evaluation_batches_have_not() -> None:
    run = resolve(recipe(image_captioning=CAPTIONING, image_naming=NAMING))
    for name, label in (("image_captioning", "label_ids"), ("image_naming", "class")):
        dataset = run.dataset(name, "train")
        examples = [dataset.examples(i)[0] for i in range(4)]
        plain, trained = (
            dataset.collate(examples),
            dataset.collate(examples, rng=np.random.default_rng(0)),
        )
        assert plain.candidates is None and trained.candidates.layout.spans[0].role is Role.TARGET
        every = torch.cat([b.inputs[0] for b in dataset.candidate_batches()])
        known = plain.labels[label] != IGNORE
        picked = trained.candidates.inputs[0][trained.labels[label][known]]
        width = picked.shape[1]
        assert torch.equal(picked, every[plain.labels[label][known]][:, :width])


def test_all_tasks_share_one_parameter_outside_the_encoder() -> None:
    retrieval = {**CAPTIONING, "target": "similarity"}
    resolved = resolve(
        recipe(image_naming=NAMING, image_captioning=CAPTIONING, text_to_image=retrieval)
    )
    model = Model(resolved.model, resolved.assets)
    assert [name for name, _ in model.targets.named_parameters()] == ["similarity.pairs.log_scale"]
    assert {t for task in resolved.model.tasks.values() for t in task.targets} == {"similarity"}


def test_class_names_are_the_labels_of_the_training_data_or_as_written() -> None:
    resolved = resolve(recipe(image_naming=NAMING))
    assert "Flags" in resolved.recipe.tasks["image_naming"].classes.values()
    assert resolved.task("image_naming").classes == [*resolved.recipe.tasks["image_naming"].classes]
    assert RecipeConfig.parse(resolved.recipe.model_dump(mode="json")) == resolved.recipe
    written = {**NAMING, "classes": {"Flags": "旗帜", "Objects": "物品"}}
    dataset = resolve(recipe(image_naming=written)).dataset("image_naming", "train")
    assert dataset.task.classes == ["Flags", "Objects"]
    with pytest.raises(BadInput, match="label 'Symbols' is not in the list"):
        [dataset.examples(i) for i in range(len(dataset))]


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        (
            "image_naming",
            {**NAMING, "classes": ["Flags"]},
            r"tasks\.image_naming\.classes: 1 listed; check the label column",
        ),
        (
            "image_captioning",
            {**CAPTIONING, "classes": ["a", "b"]},
            "image_captioning does not choose among class names",
        ),
        (
            "image_naming",
            {**NAMING, "classes": {"Flags": "x", "Objects": "x"}},
            "class name 'x' is empty or given twice",
        ),
        (
            "image_naming",
            {**NAMING, "classes": {"Flags": "x", "Objects": " "}},
            "class name '' is empty or given twice",
        ),
        (
            "text_to_image",
            {**CAPTIONING, "target": "mlm"},
            "'mlm' is of kind 'contrastive'|the task needs 'contrastive'",
        ),
    ],
)
def test_recipes_that_cannot_be(name: str, task: dict[str, Any], message: str) -> None:
    described = {**MODEL, "targets": {"similarity": {}, "mlm": {}}}
    with pytest.raises(ConfigError, match=message):
        data = {"model": described, "tasks": {name: task}, "training": {"steps": 1}}
        resolve(RecipeConfig.parse(data))


def test_tasks_that_resemble_each_other_have_the_same_conditions() -> None:
    """But for the name, which only the route `task` looks at; so a task never seen finds the
    experts of one that was."""

    def conditions(name: str) -> set[Condition]:
        layout = Layout(name, TASKS[name].spans)
        return {replace(condition, task="") for condition in layout.conditions}

    assert conditions("image_naming") < conditions("image_captioning")
    assert conditions("text_to_frames") == conditions("text_to_image") != conditions("image_naming")
    assert (
        conditions("text_naming") == conditions("word_filling") != conditions("language_modelling")
    )


def test_the_packaged_recipe_has_one_target_and_routes_by_attributes() -> None:
    packaged = read_recipe(find_recipe("unified"))
    assert (
        list(packaged.model.targets) == ["similarity"]
        and packaged.model.encoder.sparse.linears.route == "attribute"
    )

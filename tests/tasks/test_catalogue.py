"""Every task of the catalogue on the real pack: a finite loss, and a gradient for exactly what it
activates."""

from functools import cache

import numpy as np
import pytest
import torch
from text_rows import text_sources

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.data.mixture import Mixture
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks import TASKS
from skillweave.tasks.dataset import TaskDataset, open_task, stable_order
from skillweave.tasks.prepare import prepare

SOURCES = {
    "text_classification": {"path": "pack:poems", "columns": {"label": "dynasty"}},
    "speech_recognition": {"path": "pack:speech"},
    "image_classification": {"path": "pack:emoji", "columns": {"label": "category"}},
    "video_classification": {"path": "pack:clips", "columns": {"label": "motion"}},
    "sound_classification": {"path": "pack:speech", "columns": {"label": "transcript"}},
    "text_to_image": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "text_to_video": {"path": "pack:clips", "columns": {"text": ["caption_zh", "caption_en"]}},
    "text_to_code": {"path": "pack:code_zh"},
    "masked_text": {"path": "pack:poems"},
    "masked_sound": {"path": "pack:speech"},
    "image_text_contrastive": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "video_text_contrastive": {
        "path": "pack:clips",
        "columns": {"text": ["caption_zh", "caption_en"]},
    },
    "masked_image": {"path": "pack:emoji"},
    "masked_image_tokens": {"path": "pack:emoji"},
    "masked_video": {"path": "pack:clips"},
    "masked_code": {"path": "pack:code_zh"},
    "text_to_frames": {"path": "pack:clips", "columns": {"text": ["caption_zh", "caption_en"]}},
    "text_naming": {"path": "pack:poems", "columns": {"label": "dynasty"}},
    "image_naming": {"path": "pack:emoji", "columns": {"label": "category"}},
    "video_naming": {"path": "pack:clips", "columns": {"label": "motion"}},
    "image_captioning": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "video_captioning": {"path": "pack:clips", "columns": {"text": ["caption_zh", "caption_en"]}},
    "word_filling": {"path": "pack:poems"},
    "language_modelling": {"path": "pack:poems"},
    "speech_to_text": {"path": "pack:speech"},
    "code_to_text": {"path": "pack:code_zh"},
    "masked_text_pair": {"path": "pack:poems"},
    "text_denoising": {"path": "pack:poems"},
    "gap_sentences": {"path": "pack:poems"},
    "span_corruption": {"path": "pack:poems"},
    "replaced_text": {"path": "pack:poems"},
    **text_sources(),
}
MODEL = {
    "width": 24,
    "shared": ["word"],
    "streams": {
        "text": {"vocabulary": 600, "max_length": 32},
        "code": {"vocabulary": 600, "max_length": 48},
        "image": {"size": 16, "patch": 4, "embedding": ["masked_patch", "position"]},
        "sound": {"channels": 8, "max_length": 100},
        "video": {
            "size": 16,
            "frames": 2,
            "tubelet": [1, 8, 8],
            "embedding": ["visible_tubelet", "factorised_position"],
        },
    },
    "encoder": {"layers": 2, "heads": 2, "feed_forward": 48, "sparse": {"qkv": {"route": "skill"}}},
    "target_embedding": {"max_length": 20},
    "decoder": {"layers": 1, "heads": 2, "feed_forward": 48},
    "targets": {
        "masked_unit": {"clusters": 6},
        "classification": {"classes": []},
        "masked_image_token": {"vocabulary": 9},
        "masked_autoencoder": {
            "stream": "video",
            "width": 16,
            "decoder": {"layers": 1, "heads": 2, "feed_forward": 32},
        },
    },
}


def recipe(*names: str) -> RecipeConfig:
    tasks = {
        name: {"data": {**SOURCES[name], "limit": 30}, "batch_size": 4, "augment": {"join": 2}}
        for name in names
    }
    for name in names:
        if name.endswith("_classification") and name != "text_classification":
            tasks[name]["target"] = name  # a classifier each
    return RecipeConfig.parse(
        {"model": MODEL, "tasks": tasks, "training": {"steps": 4, "threads": 1}}
    )


@cache
def prepared() -> tuple[RecipeConfig, dict[str, bytes]]:
    return prepare(recipe(*TASKS))


@cache
def dataset(name: str) -> TaskDataset:
    return open_task(prepared()[0], name, "train", prepared()[1])


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    resolved, assets = prepared()
    return Model(resolved.model, assets).train()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_loss_and_gradients(name: str, model: Model) -> None:
    data = dataset(name)
    examples = [data.example(i) for i in range(5)]
    batch = data.collate(examples, rng=np.random.default_rng(0))
    model.zero_grad()
    out = model(batch)
    assert torch.isfinite(out.loss)
    out.loss.backward()
    found = {n for n, p in model.named_parameters() if p.grad is not None}
    assert found == set(model.active_parameters(name))
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_evaluation_takes_every_sample_once_in_a_fixed_order(name: str) -> None:
    batches: list[Batch] = list(dataset(name).batches(7))
    keys = [key for b in batches for key in b.keys]
    skipped = [s.key for b in batches for s in b.skipped]
    every = [dataset(name).key(i) for i in range(len(dataset(name)))]
    assert sorted(keys + skipped) == sorted(every)
    assert [k for b in dataset(name).batches(3, limit=9) for k in b.keys] == keys[:9]
    assert all(
        torch.equal(a, b)
        for a, b in zip(batches[0].inputs, next(dataset(name).batches(7)).inputs, strict=True)
    )


def test_mixture_of_all(model: Model) -> None:
    datasets = {name: dataset(name) for name in TASKS}
    resolved, _ = prepared()
    mixture = Mixture(datasets, resolved.training, resolved.tasks)
    for i in range(len(mixture)):
        assert torch.isfinite(model(mixture[i]).loss)


def test_prepare_fills_in_what_the_recipe_leaves_open() -> None:
    resolved, assets = prepared()
    assert set(resolved.model.tasks) == set(TASKS)
    assert len(resolved.model.targets["classification"].classes) >= 2
    transcripts = {c for t in dataset("speech_recognition").source.column("transcript") for c in t}
    assert set(resolved.model.targets["ctc"].characters) == transcripts
    assert set(assets) == {
        "text_tokenizer.json",
        "sound_units.safetensors",
        "visual_tokens.safetensors",
    }
    assert resolved.model.streams.text.vocabulary == resolved.model.streams.code.vocabulary <= 600


def test_prepare_is_deterministic_and_keeps_what_is_resolved() -> None:
    names = ("text_classification", "speech_recognition")
    once = prepare(recipe(*names).model_copy(update={"model": recipe(*names).model}))
    assert prepare(recipe(*names)) == once
    assert prepare(*once) == once
    assert RecipeConfig.parse(once[0].model_dump(mode="json")) == once[0]


def test_streams_and_targets_that_no_task_uses_are_left_out() -> None:
    """As when `only` makes a modality-specific model of a mixture's recipe."""
    data = recipe("speech_recognition").model_dump(mode="json")
    data["model"]["targets"]["mlm"] = {}
    resolved = prepare(RecipeConfig.parse(data))[0].model
    assert list(resolved.streams.present()) == ["sound"] and not resolved.shared
    assert set(resolved.targets) == {"ctc"} and set(resolved.tasks) == {"speech_recognition"}


def test_orders_do_not_depend_on_the_order_of_files() -> None:
    keys = [f"k{i}" for i in range(20)]
    shuffled = keys[7:] + keys[:7]
    assert [keys[i] for i in stable_order(keys)] == [shuffled[i] for i in stable_order(shuffled)]


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
        prepare(RecipeConfig.parse(data))


def test_streams_that_a_task_lacks() -> None:
    data = recipe("text_to_image").model_dump(mode="json")
    del data["model"]["streams"]["image"], data["model"]["targets"]["masked_image_token"]
    with pytest.raises(
        ConfigError, match="task 'text_to_image' needs a stream 'image'; add it under"
    ):
        prepare(RecipeConfig.parse(data))


def test_tasks_of_one_classifier_have_a_label_in_common() -> None:
    both = recipe("text_classification", "image_classification").model_dump(mode="json")
    both["tasks"]["image_classification"]["target"] = "classification"
    fault = (
        r"share the target 'classification' and no label .*`target: image_classification` under"
        r" tasks.image_classification"
    )
    with pytest.raises(ConfigError, match=fault):
        prepare(RecipeConfig.parse(both))

"""The examples in docs/extending.md and docs/data.md of what other packages can add."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from registered import registered_for_now

import skillweave as sw
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.metrics import METRICS
from skillweave.model.formats import as_own
from skillweave.model.model import Model
from skillweave.tasks.predictions import evaluating
from skillweave.tasks.resolve import resolve

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, title: str, end: str = "") -> list[str]:
    """The Python blocks below a title of a page, up to another one."""
    text = (DOCS / page).read_text("utf-8").partition(f"\n{title}\n")[2]
    text = text.partition(f"\n{end}\n")[0] if end else re.split(r"\n## ", text)[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def examples() -> Iterator[None]:
    """Run all examples; afterwards nothing of them is registered."""
    found = [
        *blocks("extending.md", "## A target", "## A step of a corpus"),
        *blocks(
            "extending.md",
            "## A format of model configurations",
            "## What needs changes in existing files",
        ),
    ]
    with registered_for_now():
        for code in [*found, *blocks("data.md", "## Your own source")]:
            exec(compile(code, "<example>", "exec"), {"__name__": "example"})
        yield


def test_a_target_and_a_task_family(tmp_path: Path) -> None:
    data: dict[str, Any] = {
        "name": "counting",
        "output": str(tmp_path / "run"),
        "model": {
            "width": 16,
            "streams": {"text": {"vocabulary": 60, "max_length": 16}},
            "encoder": {"layers": 1, "heads": 2, "feed_forward": 32},
        },
        "tasks": {"text_counting": {"data": {"path": "parabola:40"}, "batch_size": 4}},
        "training": {"steps": 1, "threads": 1},
    }
    ready = resolve(sw.RecipeConfig.parse(data))
    model = Model(ready.model, ready.assets)
    assert ready.model.targets["count"].kind == "count"
    dataset = ready.dataset("text_counting", "test")
    out = model(next(dataset.batches(4)))
    assert torch.isfinite(out.loss)
    with evaluating(model):
        found = dataset.task.entry.predict(model, dataset.task, dataset.batches(4), None)
    (value,) = dataset.task.entry.columns(found)
    assert value == "absolute_error" and (found.values > 0).all()
    assert dataset.task.entry.chance(found, dataset).keys() == {"absolute_error"}


def test_a_metric() -> None:
    compute = METRICS["balanced_accuracy"].compute
    predictions = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    given = type("Found", (), {"probabilities": predictions, "labels": np.array([0, 1, 0, 0])})
    statistic, columns = compute(given)
    assert statistic(*columns) == pytest.approx((2 / 3 + 1) / 2)
    assert statistic(*(np.stack([one, one]) for one in columns)).shape == (2,)


def test_a_route() -> None:
    encoder = {"layers": 1, "heads": 2, "sparse": {"linears": {"route": "direction"}}}
    task = {"spans": [{"modality": "text", "attention": "causal"}], "targets": {"lm": 1.0}}
    settings = {"width": 8, "streams": {"text": {}}, "targets": {"lm": {}}, "tasks": {"lm": task}}
    model = Model(sw.ModelConfig.parse({**settings, "encoder": encoder}))
    active = model.active_parameters("lm")
    assert all("causal" in name for name in active if ".experts." in name)
    assert set(model.encoder.blocks[0].attention.qkv.experts) == {"full", "causal"}


def test_a_source() -> None:
    rows = list(open_source(DataConfig(path="squares:50"), "train"))
    assert all(row["label"] == int(row["text"]) ** 2 for row in rows)
    assert len(list(open_source(DataConfig(path="parabola:9"), "train"))) <= 9


def test_a_format_of_model_configurations() -> None:
    assert sw.ModelConfig.parse(as_own({"bert_layers": 4})).encoder.layers == 4


def test_a_hugging_face_family() -> None:
    assert FAMILIES["my_bert"].heads == FAMILIES["bert"].heads

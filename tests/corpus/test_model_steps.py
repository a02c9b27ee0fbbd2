"""Steps that ask a model: the scores are those of the Predictor and of the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_files import encoded, photo
from corpus_rows import shard_rows
from tiny_run import make_run, save_run

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.corpus import clean
from skillweave.corpus.step import STEPS
from skillweave.data.collate import collate
from skillweave.tasks.dataset import build_context
from skillweave.tasks.task import Mode


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("corpus"))


def test_a_classifier(run: Path, write_jsonl, configure) -> None:
    texts = ["so good", "very bad", "so so", "bad bad bad"]
    answers = sw.predict(str(run), task="text_classification", inputs=texts)
    scores = [answer["probabilities"]["positive"] for answer in answers]
    least = sorted(scores)[2]
    step = {"kind": "classifier", "model": str(run), "task": "text_classification"}
    step |= {"label": "positive", "least": least - 1e-6, "device": "cpu"}
    file = write_jsonl("a.jsonl", [{"text": text} for text in texts] + [{"title": "no text"}])
    config = configure(file, step)
    clean(config, processes=1)
    *found, without = shard_rows(config)
    expected = {text: score for text, score in zip(texts, scores, strict=True) if score >= least}
    assert {row["text"]: row["score"] for row in found} == pytest.approx(expected)
    assert without["score"] is None
    with pytest.raises(ConfigError, match=r"no class 'positiv'; did you mean 'positive'\?"):
        STEPS["classifier"].parse(step | {"label": "positiv"}).prepare()
    with pytest.raises(ConfigError, match=r"gives class, .*; name a class"):
        list(STEPS["classifier"].parse(step | {"label": None}).run([{"text": "x"}]))


def test_relevance_of_pairs(run: Path) -> None:
    options = {"model": str(run), "task": "text_to_image", "device": "cpu"}
    step = STEPS["relevance"](**options, least=-1)
    step.prepare()
    rows = [{"text": "red square", "image": encoded(photo(i))} for i in range(3)]
    rows += [{"text": "only a text"}, {"text": "x", "image": b"broken"}]
    found: list[Any] = list(step.run(rows))
    text = sw.encode(str(run), task="text_to_image", text=["red square"])
    images = sw.encode(str(run), task="text_to_image", image=[row["image"] for row in rows[:3]])
    expected = (images @ text[0]).tolist()
    assert [one["relevance"] for one in found[:3]] == pytest.approx(expected, abs=1e-6)
    assert found[3] is None and found[4].reason == "the model cannot read it"
    strict = STEPS["relevance"](**options, least=1)
    assert {one.reason for one in list(strict.run(rows[:3]))} == {"relevance under 1"}


def test_perplexity_of_a_language_model(tmp_path: Path) -> None:
    rows = [
        {"text": f"the {c} {t} stands here"} for c in ("red", "blue") for t in ("cat", "dog", "sun")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "{r["text"]}"}}\n' for r in rows * 9))
    data = {"path": str(tmp_path / "rows.jsonl")}
    run = save_run(
        {
            "name": "lm",
            "output": str(tmp_path / "run"),
            "model": {
                "width": 16,
                "streams": {
                    "text": {"vocabulary": 60, "max_length": 16, "tokenizer": {"min_frequency": 1}}
                },
                "encoder": {"layers": 1, "heads": 2, "feed_forward": 32},
                "targets": {"lm": {}},
            },
            "tasks": {"language_modelling": {"target": "lm", "data": data}},
            "training": {"steps": 1},
        }
    )
    step = STEPS["model_perplexity"](model=str(run), task="language_modelling", device="cpu")
    step.prepare()
    texts = ["the red cat stands here", "the sun", "here here here red cat dog"]
    found = [one["perplexity"] for one in step.run([{"text": text} for text in texts])]
    # one text at a time, and the loss of the model by itself
    model = step.predictor.model
    task = step.predictor.task("language_modelling")
    context = build_context(task, model.assets, Mode.EVALUATION)
    for text, value in zip(texts, found, strict=True):
        row = {"key": "0", "text": text}
        example = task.entry.example(row, context, np.random.default_rng(0))
        with torch.no_grad():
            out = model(collate(task.layout, [example], model.config.streams, 1))
        assert value == pytest.approx(out.losses["lm"].exp().item(), rel=1e-4)
    assert 30 < found[0] < 120  # an untrained model: about the size of the vocabulary
    low = STEPS["model_perplexity"](model=str(run), task="language_modelling", most=2, device="cpu")
    (high,) = low.run([{"text": texts[0]}])
    assert high.reason == "perplexity over 2"
    other = STEPS["model_perplexity"](
        model=str(run), task="language_modelling", language="zh", device="cpu"
    )
    assert list(other.run([{"text": texts[0], "language": "en"}])) == [None]


def test_a_task_that_predicts_no_tokens(run: Path) -> None:
    step = STEPS["model_perplexity"](model=str(run), task="text_classification", device="cpu")
    with pytest.raises(ConfigError, match=r"give (one|a task)"):
        step.prepare()

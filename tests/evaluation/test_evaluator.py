"""The evaluator on a tiny run: its contract, and figures computed a second way."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_run import make_run

from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.evaluation.evaluator import evaluate, measure, predict_dataset
from skillweave.inference import open_run
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.reporting.console import evaluation_table
from skillweave.tasks.resolve import resolve
from skillweave.tasks.retrieval import Retrieval, RetrievalPredictions


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(make_run(tmp_path_factory.mktemp("evaluator")))


@pytest.fixture(scope="module")
def measured(run):
    return measure(*run, bootstrap=20)


def test_the_tables_follow_the_contract(measured):
    tables = {name: m.table for name, m in measured.items()}
    assert json.loads(json.dumps(tables)).keys() == tables.keys()
    wanted = {
        "text_classification": {"accuracy"},
        "speech_recognition": {"cer"},
        "text_to_image": {"recall_at_1", "recall_at_5", "recall_at_10", "median_rank"},
    }
    for task, names in wanted.items():
        table = tables[task]
        assert names == table["chance"].keys() == table["interval"].keys() and names < table.keys()
        assert all(low <= table[name] <= high for name, (low, high) in table["interval"].items())
        assert table["n"] == 6 and table["skipped"] == table["truncated"] == 0
        assert 0 < table["activated_parameters"] < table["total_parameters"]
    assert tables["text_to_image"]["pool"] == 6
    assert tables["text_to_code"]["pool"] == tables["text_to_code"]["n"] == 4
    assert tables["text_classification"]["pool"] is None


def test_tasks_without_samples_are_named_and_the_others_measured(tmp_path):
    model, recipe = open_run(make_run(tmp_path))
    names = ["text_to_code", "text_classification", "text_to_image", "speech_recognition"]
    data = tmp_path / "data"
    for name, rows in (("text_to_image", "train"), ("speech_recognition", "")):
        file = data / f"{name}.jsonl"
        kept = [line for line in file.read_text().split("\n") if f'"split": "{rows}"' in line]
        file.write_text("\n".join(kept))
    for file in data.glob("test-*.png"):
        file.unlink()
    with pytest.warns(UserWarning) as told:
        tables = evaluate(model, recipe, tasks=names, bootstrap=0)
    assert list(tables) == ["text_to_code", "text_classification"]
    reasons = sorted(str(one.message) for one in told)
    assert len(reasons) == 2
    assert reasons[0].startswith("task speech_recognition is not evaluated: tasks.speech")
    assert "task text_to_image is not evaluated" in reasons[1] and "'test'" in reasons[1]
    with pytest.raises(ConfigError, match="no rows for the split 'test'"):
        evaluate(model, recipe, tasks=["text_to_image"], bootstrap=0)
    with pytest.raises(ConfigError, match="did you mean 'text_to_code'"):
        evaluate(model, recipe, tasks=["text_to_cod", "text_classification"], bootstrap=0)


def test_chance_by_hand(measured):
    # Three positive and three negative texts: the majority is right half of the time.
    assert measured["text_classification"].table["chance"] == {"accuracy": 0.5}
    # Two of six captions are equal, so two queries have 2 right answers of 6 and four have 1.
    assert measured["text_to_image"].table["chance"]["recall_at_1"] == pytest.approx(
        (2 * 2 / 6 + 4 * 1 / 6) / 6
    )
    # "ab" against ab, ba, aab, b, a, abb: 0 + 2 + 1 + 1 + 1 + 1 edits over 12 characters.
    assert measured["speech_recognition"].table["chance"]["cer"] == pytest.approx(6 / 12)


def test_the_code_baseline_reads_identifiers(measured):
    # Each description names the one colour of its function, so TF-IDF finds all of them.
    assert measured["text_to_code"].table["baseline"]["recall_at_1"] == 1


def test_every_task_of_the_run_has_a_baseline_and_a_verdict(measured):
    for one in measured.values():
        table = one.table
        assert table["baseline"].keys() == table["chance"].keys()
        assert (
            table["verdict"].count("baseline") >= 1 and table["baseline_name"] in table["verdict"]
        )
        assert table["milliseconds"] > 0 and table["baseline_seconds"] > 0


def test_plain_pictures_are_found_by_their_colours(measured):
    # Each caption but the one of two colours ("red square" also names a maroon one) stands for a
    # single colour in training, so that the baseline finds at least four of the six.
    assert measured["text_to_image"].table["baseline"]["recall_at_1"] >= 4 / 6


def test_the_nearest_recording_is_the_same_one_of_training(measured):
    # the recordings of the splits are the same, so the nearest one has the right transcript
    assert measured["speech_recognition"].table["baseline"] == {"cer": 0.0}


def test_recall_is_that_of_the_models_own_vectors(run, measured):
    found = measured["text_to_image"].predictions
    assert isinstance(found, RetrievalPredictions)
    np.testing.assert_allclose(np.linalg.norm(found.items, axis=1), 1, atol=1e-5)
    order = np.argsort(-(found.queries @ found.items.T), axis=1)
    first = [found.captions[row[0]] == found.captions[q] for q, row in enumerate(order)]
    assert measured["text_to_image"].table["recall_at_1"] == pytest.approx(np.mean(first))


def with_task_changes(ready, names, **changes):
    tasks = dict(ready.recipe.tasks)
    tasks |= {name: tasks[name].model_copy(update=changes) for name in names}
    return replace(ready, recipe=ready.recipe.model_copy(update={"tasks": tasks}))


def test_a_pool_is_the_beginning_of_the_whole_split(run, measured):
    model, ready = run
    recipe = with_task_changes(ready, ["text_to_code"], pool=None)
    all_six = measure(model, recipe, tasks=["text_to_code"], bootstrap=0)
    assert len(all_six["text_to_code"].predictions.keys) == 6
    assert all_six["text_to_code"].predictions.keys[:4] == measured["text_to_code"].predictions.keys


def test_batch_size_changes_nothing(run, measured):
    model, ready = run
    again = evaluate(model, with_task_changes(ready, ready.tasks, batch_size=1), bootstrap=0)
    for name, table in again.items():
        for metric in table["chance"]:
            assert table[metric] == pytest.approx(measured[name].table[metric])


def test_broken_samples_are_counted_and_the_mode_is_put_back(run, monkeypatch):
    model, recipe = run
    dataset = recipe.dataset("text_to_image", "test")
    build = type(dataset.task.entry).example

    def fail(self, row, context, rng):
        if row["key"] == "test-1":
            raise BadInput("made to fail")
        return build(self, row, context, rng)

    monkeypatch.setattr(type(dataset.task.entry), "example", fail)
    model.train()
    found = predict_dataset(model, dataset, dataset.batches(4))
    assert model.training
    model.eval()
    assert len(found.keys) == 5 and [s.reason for s in found.skipped] == ["made to fail"]
    table = evaluate(model, recipe, tasks=["text_to_image"], bootstrap=0)["text_to_image"]
    assert (table["n"], table["skipped"]) == (5, 1)
    (remark,) = table["remarks"]
    assert remark.startswith("samples skipped: 1, such as ") and "made to fail" in remark


def test_unknown_names_are_told(run):
    with pytest.raises(ConfigError, match="text_to_image"):
        evaluate(*run, tasks=["text_to_imgae"])
    with pytest.raises(ConfigError, match="did you mean 'test'"):
        evaluate(*run, split="tset")


def test_progress_ends_at_the_total(run):
    seen = []
    evaluate(*run, tasks=["text_to_code"], bootstrap=0, progress=lambda *call: seen.append(call))
    assert seen == [("text_to_code", 4, 4)]


def test_remarks_stand_beside_the_figures_and_on_the_terminal(run, monkeypatch):
    monkeypatch.setattr(Retrieval, "remarks", lambda self, found: ["mind [this]"])
    tables = evaluate(*run, tasks=["text_to_code", "text_classification"], bootstrap=2)
    assert tables["text_to_code"]["remarks"] == ["mind [this]"]
    assert "remarks" not in tables["text_classification"]
    code, text = (f"{name}: {table['verdict']}" for name, table in tables.items())
    shown = str(evaluation_table(tables, "x").caption)
    assert shown == "\n".join((code, "text_to_code: mind [this]", text))


@pytest.mark.parametrize(
    "task",
    ["masked_text", "language_modelling", "span_corruption", "text_denoising", "text_infilling"],
)
def test_texts_that_are_longer_than_the_model_reads_are_counted(tmp_path, task):
    texts = [f"{'one two three four five. ' * (1 if i % 4 else 9)}{i}" for i in range(12)]
    file = tmp_path / "a.jsonl"
    rows = [{"key": str(i), "text": text, "split": "test"} for i, text in enumerate(texts)]
    rows += [{"key": f"t{i}", "text": text, "split": "train"} for i, text in enumerate(texts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ready = resolve(RecipeConfig.parse({
        "model": {
            "width": 8,
            "streams": {"text": {"vocabulary": 200, "max_length": 32}},
            "encoder": {"layers": 1, "heads": 2, "feed_forward": 8},
        },
        "tasks": {task: {"data": {"path": str(file)}}},
        "training": {"steps": 1},
    }))  # fmt: skip
    table = evaluate(Model(ready.model, ready.assets), ready, bootstrap=2)[task]
    assert table["truncated"] == 3 and table["n"] == 12
    assert table["remarks"][0].startswith("only the beginning of 3 of 12 samples was read")

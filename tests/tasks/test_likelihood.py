"""Classes by likelihood: the numbers are those of a plain loop with Transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hf_writers import save_gpt2, save_t5
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from skillweave import cli
from skillweave.config import ConfigError
from skillweave.evaluation.evaluator import evaluate, predict_dataset
from skillweave.evaluation.zero_shot import open_unseen
from skillweave.inference import predict
from skillweave.model.model import Model
from skillweave.tasks.likelihood import ScoredClasses
from skillweave.tasks.resolve import ResolvedRecipe

CLASSES = {"0": "space", "1": "cars", "2": "the news", "3": "cats", "4": "a dog"}
TEMPLATE = "{text}\nTopic: {label}"
WORDS = [
    "the",
    "red",
    "cat",
    "sleeps",
    "on",
    "a",
    "mat",
    "and",
    "blue",
    "dogs",
    "run",
    "in",
    "parks",
    "about",
    "space",
    "or",
    "cars",
]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    save_gpt2(folder)
    return folder


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    save_t5(folder)
    return folder


def rows(count: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "key": f"{seed}-{i}",
            "text": " ".join(rng.choice(WORDS, 3 + i % 5)),
            "label": str(i % len(CLASSES)),
            "place": f"place {i}",
        }
        for i in range(count)
    ]


def write_rows(folder: Path, **splits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    paths = {}
    for split, some in splits.items():
        paths[split] = str(folder / f"{split}.jsonl")
        Path(paths[split]).write_text("".join(json.dumps(row) + "\n" for row in some), "utf-8")
    return {"path": paths}


def unseen(
    model: Path, folder: Path, data: Mapping[str, Any], **settings: Any
) -> tuple[Model, ResolvedRecipe]:
    """A model with the task `topics`."""
    task = {"kind": "perplexity_classification", "template": TEMPLATE, "classes": CLASSES}
    task |= {"data": dict(data), "batch_size": 5, **settings}
    file = folder / "tasks.yaml"
    file.write_text(yaml.safe_dump({"tasks": {"topics": task}}, allow_unicode=True), "utf-8")
    return open_unseen(model, file, device="cpu")


def found_in(able: tuple[Model, ResolvedRecipe]) -> ScoredClasses:
    dataset = able[1].dataset("topics", "test")
    found = predict_dataset(able[0], dataset, dataset.batches(5))
    assert isinstance(found, ScoredClasses)
    return found


def theirs(folder: Path, before: str, text: str, start: int, begin: Sequence[int] = ()) -> Any:
    """The log probabilities of the tokens of `text` from character `start` on, by Transformers. For
    an encoder-decoder, `before` is what its encoder reads."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids = torch.tensor([[*begin, *encoded["input_ids"]]])
    with torch.no_grad():
        if "t5" in folder.name:
            model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
            given = tokenizer(before, return_tensors="pt")["input_ids"]
            logits = model(given, decoder_input_ids=ids).logits
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            logits = model(ids).logits
    log_p = logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
    ends = [end for _, end in encoded["offset_mapping"]][1 - bool(begin) :]
    return log_p[torch.tensor(ends) > start]


def scores(folder: Path, text: str, how: str) -> list[float]:
    """Of the classes, as `how` says, from whole passes alone."""
    found = []
    for name in CLASSES.values():
        before = f"{text}\nTopic: "
        alone, start = "t5" in folder.name, 0 if "t5" in folder.name else len(before)
        own = name if alone else f"{before}{name}"
        begin = [0] if alone or how == "text" else []
        log_p = theirs(folder, before, own, 0 if how == "text" else start, begin)
        score = {"token": log_p.mean(), "text": log_p.mean(), "sum": log_p.sum()}
        score["character"] = log_p.sum() / len(name)
        if how == "pmi":
            empty = "\nTopic: "
            whole = name if alone else f"{empty}{name}"
            bare = theirs(folder, empty, whole, 0 if alone else len(empty), begin)
            score["pmi"] = log_p.sum() - bare.sum()
        found.append(float(score[how]))
    return found


@pytest.mark.parametrize("how", ["sum", "token", "character", "text", "pmi"])
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_scores_are_those_of_transformers(
    kind: str, how: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder, some = request.getfixturevalue(kind), rows(3)
    data = write_rows(tmp_path, test=some)
    model, _ = unseen(folder, tmp_path, data, prompting={"normalization": how})
    answers = predict(model, "topics", [{"text": row["text"]} for row in some])
    for row, answer in zip(some, answers, strict=True):
        expected = torch.tensor(scores(folder, row["text"], how)).softmax(0)
        shares = torch.tensor(list(answer["probabilities"].values()))
        torch.testing.assert_close(shares, expected, rtol=2e-5, atol=1e-6)
        assert answer["class"] == list(CLASSES)[int(expected.argmax())]


def test_a_measured_sample_is_a_predicted_one(gpt2: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path, test=rows())
    able = unseen(gpt2, tmp_path, data)
    found, by_key = found_in(able), {row["key"]: row for row in rows()}
    texts = [{"text": by_key[key]["text"]} for key in found.keys]
    for answer, shares in zip(predict(able[0], "topics", texts), found.probabilities, strict=True):
        np.testing.assert_allclose(list(answer["probabilities"].values()), shares, rtol=1e-4)
    labels = [list(CLASSES)[label] for label in found.labels]
    assert labels == [by_key[key]["label"] for key in found.keys]


def test_any_field_can_be_named_and_the_label_can_stand_anywhere(
    gpt2: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path, test=rows(2))
    model, _ = unseen(gpt2, tmp_path, data, template="news of {label} at {place}: {text}.")
    row = rows(2)[1]
    (answer,) = predict(model, "topics", [{name: row[name] for name in ("text", "place")}])
    expected = [
        float(theirs(gpt2, "", f"news of {name} at place 1: {row['text']}.", 8).mean())
        for name in CLASSES.values()
    ]
    shares = torch.tensor(list(answer["probabilities"].values()))
    torch.testing.assert_close(shares, torch.tensor(expected).softmax(0), rtol=2e-5, atol=1e-6)
    (told,) = predict(model, "topics", [{"text": "x"}])
    assert told == {"error": "no place"}


def test_drawn_negatives_compete_with_the_right_class_alone(gpt2: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path, test=rows(20))
    whole = found_in(unseen(gpt2, tmp_path, data))
    fewer = {"negatives": 2, "repeats": 3}
    able = unseen(gpt2, tmp_path, data, prompting=fewer)
    found = found_in(able)
    dataset = able[1].dataset("topics", "test")
    batches = list(dataset.batches(5))
    about = [one["candidates"] for batch in batches for one in batch.metadata]
    for n, one in enumerate(about):
        assert len(one.draws) == 3 and all(len({*draw}) == 3 for draw in one.draws)
        shares = whole.probabilities[n]
        sets = [[one.numbers[place] for place in draw] for draw in one.draws]
        assert all(numbers[0] == whole.labels[n] for numbers in sets)
        won = [shares[numbers].argmax() == 0 for numbers in sets]
        assert found.right is not None and found.right[n] == pytest.approx(np.mean(won))
    assert len({str(one.draws) for one in about}) > 5  # each sample has its own
    table = evaluate(*able, bootstrap=0)["topics"]
    assert table["chance"] == {"accuracy": pytest.approx(1 / 3)}
    assert table["accuracy"] == pytest.approx(float(np.mean(found.right)))
    assert any("competes with 2 others" in told for told in table["remarks"])
    other = unseen(gpt2, tmp_path, data, prompting={**fewer, "seed": 1})[1]
    again = [
        m["candidates"] for b in other.dataset("topics", "test").batches(5) for m in b.metadata
    ]
    assert [one.draws for one in again] != [one.draws for one in about]


def test_worked_examples_are_of_the_training_split(gpt2: Path, tmp_path: Path) -> None:
    train = rows(30, seed=1)
    data = write_rows(tmp_path, train=train, test=rows(4))
    able = unseen(gpt2, tmp_path, data, prompting={"shots": 1, "seed": 3})
    examples = able[1].recipe.tasks["topics"].prompting.examples
    shown = {f"{row['text']}\nTopic: {CLASSES[row['label']]}" for row in train}
    assert len(examples) == 5 and {*examples} <= shown
    assert sorted(e.rpartition(": ")[2] for e in examples) == sorted(CLASSES.values())
    assert (
        examples
        != unseen(gpt2, tmp_path, data, prompting={"shots": 1})[1]
        .recipe.tasks["topics"]
        .prompting.examples
    )
    (batch,) = able[1].dataset("topics", "test").batches(4)
    tokenizer = AutoTokenizer.from_pretrained(gpt2)
    row = next(row for row in rows(4) if row["key"] == batch.keys[0])
    used, asked = batch.metadata[0]["examples"]
    assert asked == 5
    text = "".join(f"{example}\n\n" for example in examples[5 - used :])
    expected = f"{text}{row['text']}\nTopic: {CLASSES[row['label']]}"
    assert tokenizer.decode(batch.inputs[0][0][: batch.lengths[0, 0]]) == expected


def test_examples_and_fields_without_room_are_cut_with_a_notice(gpt2: Path, tmp_path: Path) -> None:
    long = [{**row, "text": row["text"] * 8} for row in rows(10, seed=1)]
    data = write_rows(tmp_path, train=long, test=long)
    table = evaluate(*unseen(gpt2, tmp_path, data, prompting={"shots": 2}), bootstrap=0)["topics"]
    (told,) = (one for one in table["remarks"] if "worked examples" in one)
    assert told.startswith("10 of 10 samples had room for fewer") and "max_characters" in told
    longer = [{**row, "text": row["text"] * 80} for row in rows(4)]
    table = evaluate(*unseen(gpt2, tmp_path, write_rows(tmp_path, test=longer)), bootstrap=0)
    assert table["topics"]["truncated"] == 4 and table["topics"]["n"] == 4
    short = unseen(
        gpt2, tmp_path, write_rows(tmp_path, test=rows(4)), prompting={"max_characters": 5}
    )
    (batch,) = short[1].dataset("topics", "test").batches(4)
    assert batch.truncated == 4


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"template": "{texts} {label}"}, r"no column for the field 'texts'; did you mean 'text'"),
    ({"template": "{text}"}, r"'\{text\}' has 0 places for the answer; write \{label\} once"),
    ({"template": "{label} {text} {label}"}, "has 2 places for the answer"),
    ({"template": "{text {label}"}, r"write \{field\}, and \{\{ or \}\} for a brace"),
    ({"template": "{text!r} {label}"}, "between braces stands the name of a field alone"),
    ({"template": "[MASK] {text} {label}"}, "the model reads it in prompting.prefix"),
    ({"prompting": {"prefix": "{label}"}}, r"prompting.prefix names \{label\}, the answer"),
    ({"template": "nowhere.yaml"}, "there is no file nowhere.yaml"),
    ({"prompting": {"normalisation": "sum"}}, "did you mean 'normalization'"),
    ({"prompting": {"shots": 9}}, r"shots: 9, but the training split has \d rows of class '.'"),
    ({"template": "x " * 200 + "{text} {label}"}, r"take \d+ tokens without any field, and the"),
    ({"classes": {"0": "space"}}, "1 listed"),
]


@pytest.mark.parametrize(("settings", "message"), FAULTS, ids=str)
def test_faults(gpt2: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    data = write_rows(tmp_path, train=rows(20, seed=1), test=rows(4))
    with pytest.raises(ConfigError, match=message):
        evaluate(*unseen(gpt2, tmp_path, data, **settings), bootstrap=0)


def test_worked_examples_need_a_training_split(gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train"):
        unseen(gpt2, tmp_path, write_rows(tmp_path, test=rows(4)), prompting={"shots": 1})


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_template_of_a_file(gpt2: Path, tmp_path: Path, form: str) -> None:
    held = {"template": TEMPLATE, "classes": CLASSES, "prompting": {"normalization": "sum"}}
    file = tmp_path / f"topics.{form}"
    file.write_text((yaml.safe_dump if form == "yaml" else json.dumps)(held), "utf-8")
    data = write_rows(tmp_path, test=rows(4))
    own = {"seed": 4}
    _, recipe = unseen(gpt2, tmp_path, data, template=str(file), prompting=own)
    task = recipe.recipe.tasks["topics"]
    assert task.template == TEMPLATE and task.classes == CLASSES
    assert task.prompting.normalization == "sum" and task.prompting.seed == 4
    file.write_text(json.dumps({"templates": TEMPLATE}))
    with pytest.raises(ConfigError, match="unknown key 'templates'; did you mean 'template'"):
        unseen(gpt2, tmp_path, data, template=str(file))


def test_the_command_on_a_folder_of_transformers(
    t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path, train=rows(20, seed=1), test=rows(4))
    unseen(t5, tmp_path, data, prompting={"shots": 1})
    out = tmp_path / "figures.json"
    words = ["evaluate", str(t5), "--zero-shot", str(tmp_path / "tasks.yaml"), "--bootstrap", "0"]
    assert cli.main([*words, "--json", str(out), "--device", "cpu"]) == 0
    table = json.loads(out.read_text("utf-8"))["topics"]
    assert table["n"] == 4 and 0 <= table["accuracy"] <= 1 and "baseline" in table
    assert cli.main([*words, "--data", "topics=x.jsonl"]) == 2
    assert "leave --data out" in capsys.readouterr().err
    asked = ["predict", str(t5), "--task", "topics", "--zero-shot", str(tmp_path / "tasks.yaml")]
    assert cli.main([*asked, "--device", "cpu", "a red cat"]) == 0
    assert json.loads(capsys.readouterr().out)["class"] in CLASSES


def test_a_model_without_an_output_layer(tmp_path: Path) -> None:
    from hf_folder import save_bert
    from transformers import BertModel

    save_bert(tmp_path / "bert", BertModel)
    with pytest.raises(ConfigError, match="needs a target of kind lm"):
        unseen(tmp_path / "bert", tmp_path, write_rows(tmp_path, test=rows(4)))

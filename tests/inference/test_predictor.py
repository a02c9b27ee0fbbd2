"""One `Predictor` for every saved model, whose answers are those of the model itself."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hf_folder import save_bert
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
)

import skillweave as sw
from skillweave import cli
from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.inference import choose_device, predictor

TEXTS = [
    "so good",
    "so bad very bad",
    "good",
    "very very very good so good so good good good",
    "bad bad bad bad bad bad bad",
]


def close(one: list[dict], other: list[dict]) -> bool:
    """Whether classifications are the same but for rounding."""
    return all(
        a["class"] == b["class"] and a["probabilities"] == pytest.approx(b["probabilities"])
        for a, b in zip(one, other, strict=True)
    )


def test_a_run_a_checkpoint_a_slice_and_a_carved_folder_answer_alike(
    run: Path, tmp_path: Path
) -> None:
    task = "text_classification"
    answers = sw.predict(run, task, TEXTS)
    assert [answer["probability"] for answer in answers] == [
        max(answer["probabilities"].values()) for answer in answers
    ]
    assert all(sum(answer["probabilities"].values()) == pytest.approx(1) for answer in answers)
    assert answers == sw.predict(run / "best", task, TEXTS)
    assert close(answers, sw.predict(sw.load(run), task, TEXTS))
    small = sw.Predictor(run, tasks=task)
    assert list(small.tasks) == [task] and close(answers, list(small.predict(task, TEXTS)))
    whole = sw.Predictor(run).model
    assert small.model.count_parameters() < whole.count_parameters()
    sw.carve(whole, task).save_pretrained(tmp_path / "carved")
    assert close(answers, sw.predict(tmp_path / "carved", task, TEXTS))


def test_a_classifier_of_hugging_face_answers_as_it_does_there(tmp_path: Path) -> None:
    names = {0: "no", 1: "yes", 2: "maybe"}
    theirs = save_bert(tmp_path / "bert", BertForSequenceClassification, id2label=names)
    given = AutoTokenizer.from_pretrained(tmp_path / "bert")(
        TEXTS, return_tensors="pt", padding=True
    )
    with torch.no_grad():
        shares = theirs(**given).logits.softmax(-1)
    assert cli.main(["convert", str(tmp_path / "bert"), "--out", str(tmp_path / "ours")]) == 0
    for folder in ("bert", "ours"):
        found = sw.Predictor(tmp_path / folder)
        (task,) = found.tasks
        assert found.task(task).entry.name == "text_classification"
        answers = list(found.predict(task, TEXTS))
        assert [answer["class"] for answer in answers] == [names[int(i)] for i in shares.argmax(1)]
        probabilities = [list(answer["probabilities"].values()) for answer in answers]
        np.testing.assert_allclose(probabilities, shares.numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match="unknown task 'other'"):
        sw.load(tmp_path / "bert", tasks="other")


def test_a_question_answerer_of_hugging_face_finds_the_same_words(tmp_path: Path) -> None:
    theirs = save_bert(tmp_path / "bert", BertForQuestionAnswering)
    rows = [
        {"question": "what is here", "text": "the cat is here"},
        {"question": "where is the dog", "text": "here is the very good dog"},
    ]
    (task,) = sw.Predictor(tmp_path / "bert").tasks
    answers = sw.predict(tmp_path / "bert", task, rows)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    for row, answer in zip(rows, answers, strict=True):
        given = tokenizer(row["question"], row["text"], return_tensors="pt")
        with torch.no_grad():
            out = theirs(**given)
        begin_L, end_L = out.start_logits[0], out.end_logits[0]
        places = [i for i, s in enumerate(given.sequence_ids(0)) if s == 1]
        pairs = [(b, e) for b in places for e in places if b <= e]
        begin, end = max(pairs, key=lambda pair: float(begin_L[pair[0]] + end_L[pair[1]]))
        best = row["text"][given.token_to_chars(0, begin).start : given.token_to_chars(0, end).end]
        no_answer = float(begin_L[0] + end_L[0]) >= float(begin_L[begin] + end_L[end])
        assert answer == {"answer": "" if no_answer else best}


def test_an_encoder_of_hugging_face_encodes_and_says_that_it_has_no_answer(tmp_path: Path) -> None:
    save_bert(tmp_path / "bert", BertModel)
    vectors = sw.encode(tmp_path / "bert", "pooled", text=TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    with pytest.raises(ConfigError, match=r"pooled.*gives vectors: skillweave features"):
        sw.predict(tmp_path / "bert", "pooled", TEXTS)
    rows, out = tmp_path / "rows.csv", tmp_path / "vectors.npy"
    rows.write_text("\n".join(["text", *TEXTS]) + "\n")
    words = ["--task", "pooled", "--input", str(rows), "--out", str(out)]
    assert cli.main(["features", str(tmp_path / "bert"), *words]) == 0
    np.testing.assert_allclose(np.load(out), vectors, atol=1e-6)


@pytest.mark.parametrize(("batch", "window"), [(1, 1), (2, 1), (2, 2), (3, 2), (64, 8)])
def test_answers_do_not_depend_on_their_company(
    run: Path, batch: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sw.Predictor(run)
    alone = [sw.predict(found, "text_classification", [text])[0] for text in TEXTS]
    vectors = np.concatenate([found.encode("text_to_image", text=[text]) for text in TEXTS])
    monkeypatch.setattr(predictor, "BATCH", batch)
    monkeypatch.setattr(predictor, "WINDOW", window)
    inputs = [*TEXTS[:2], "", *TEXTS[2:]]
    together = sw.predict(found, "text_classification", inputs)
    assert together.pop(2) == {"error": "no text"}
    assert close(together, alone)
    np.testing.assert_allclose(found.encode("text_to_image", text=TEXTS), vectors, atol=1e-5)
    each = list(found.encode_each("text_to_image", "text", inputs))
    assert isinstance(each.pop(2), BadInput)
    np.testing.assert_allclose(np.stack(each), vectors, atol=1e-5)


def test_answers_come_before_the_inputs_end(run: Path) -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "so good"

    answers = sw.Predictor(run).predict("text_classification", endless())
    assert len({answer["class"] for answer in islice(answers, 3)}) == 1


def test_a_broken_input_does_not_stop_the_others(run: Path) -> None:
    good = run.parent / "data" / "test-0.wav"
    inputs = ["/nowhere.wav", good, {"sound": None}, good.read_bytes()]
    broken, heard, absent, again = sw.predict(run, "speech_recognition", inputs)
    assert "no such file" in broken["error"] and absent == {"error": "no sound"}
    assert set(heard["transcript"]) <= {"a", "b"} and again == heard


def test_tasks_without_answers_are_told(run: Path, tmp_path: Path) -> None:
    save_bert(tmp_path / "bert", BertForMaskedLM)
    with pytest.raises(
        ConfigError, match="'mlm' is a pretraining task and has no answer; predict with nothing"
    ):
        sw.predict(tmp_path / "bert", "mlm", TEXTS)
    found = sw.Predictor(run)
    with pytest.raises(
        ConfigError, match="unknown task 'text_clasification'; did you mean 'text_classification'"
    ):
        found.predict("text_clasification", TEXTS)
    assert found.answering("text_classification").classes == ["negative", "positive"]


def test_encode_tells_what_is_wrong(run: Path) -> None:
    model = sw.load(run)
    assert sw.encode(model, "text_to_image", image=[]).shape == (0, 16)
    with pytest.raises(ConfigError, match="give one of"):
        sw.encode(model, "text_to_image")
    with pytest.raises(ConfigError, match=r"give one of .* not text and image"):
        sw.encode(model, "text_to_image", text=["x"], image=["y"])
    with pytest.raises(ConfigError, match=r"text= is a list; write \[...\]"):
        sw.encode(model, "text_to_image", text="one")
    with pytest.raises(
        ConfigError, match="unknown task 'text_to_imag'; did you mean 'text_to_image'"
    ):
        sw.encode(model, "text_to_imag", text=["x"])
    with pytest.raises(BadInput, match=r"/nowhere\.png"):
        sw.encode(model, "text_to_image", image=["/nowhere.png"])


def test_encode_does_not_change_the_model(run: Path) -> None:
    model = sw.load(run).train()
    vectors = sw.encode(model, "text_to_image", text=TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), 16)
    assert model.training and all(x.requires_grad for x in model.parameters())


def test_the_device_is_chosen_and_named(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    available = {"torch.cuda.is_available": False, "torch.backends.mps.is_available": False}

    def choose(name: str, *found: str) -> str:
        for function in available:
            monkeypatch.setattr(function, lambda found=function.split(".")[-2] in found: found)
        return str(choose_device(name))

    assert choose("auto", "cuda", "mps") == choose("cuda", "cuda") == "cuda"
    assert choose("cuda:1", "cuda") == "cuda:1"
    assert choose("auto", "mps") == "mps"
    assert choose("auto") == choose("cpu", "cuda") == "cpu"
    with pytest.raises(
        ConfigError, match=r"device 'mps' is not available here; choose .* cpu, cuda"
    ):
        choose("mps", "cuda")
    choose("auto")
    assert sw.Predictor(run, device="cpu").device.type == "cpu"
    with pytest.raises(ConfigError, match="device 'cuda' is not available"):
        sw.Predictor(run, device="cuda")

"""The index: exact, cached as long as nothing changed, and honest about what it lacks."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny_run import make_run

from skillweave import encode
from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.inference.api import open_run
from skillweave.inference.predict import predict, read_rows, read_words, write_rows
from skillweave.retrieval.files import save_hits, suffix_of
from skillweave.retrieval.index import build_index, query, searchable, task_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("search"))


@pytest.fixture
def run(folder):
    return open_run(folder)


def test_an_index_holds_every_sample_as_encode_gives_it(run):
    model, recipe = run
    index = build_index(model, recipe, "image")
    assert [e.split for e in index.entries] == ["train"] * 6 + ["validation"] * 6 + ["test"] * 6
    file = recipe.folder.parent / "data" / "test-2.png"
    at = next(i for i, e in enumerate(index.entries) if e.key == "test-2")
    np.testing.assert_allclose(
        index.vectors[at], encode(model, "text_to_image", image=[file])[0], atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-5)


def test_hits_are_the_best_by_brute_force(run):
    model, recipe = run
    index = build_index(model, recipe, "video")
    asked = encode(model, "text_to_video", text=["green moves"])[0]
    scores = [float(v @ asked) for v in index.vectors]
    hits = query(model, index, 4, text="green moves")
    assert [h.score for h in hits] == pytest.approx(sorted(scores, reverse=True)[:4])
    assert all(scores[index.entries.index(h.entry)] == pytest.approx(h.score) for h in hits)


def test_an_image_finds_itself(run):
    model, recipe = run
    hits = query(
        model,
        build_index(model, recipe, "image"),
        1,
        image=recipe.folder.parent / "data" / "test-1.png",
    )
    assert hits[0].entry.caption == "green square" and hits[0].score == pytest.approx(1, abs=1e-5)


def test_the_stored_index_is_used_until_the_weights_change(run):
    model, recipe = run
    first = build_index(model, recipe, "code")
    listing = recipe.folder / "index" / "text_to_code.code.json"
    about = json.loads(listing.read_text("utf-8"))
    about["entries"][0]["caption"] = "read from the file"
    listing.write_text(json.dumps(about), "utf-8")
    assert build_index(model, recipe, "code").entries[0].caption == "read from the file"
    with torch.no_grad():
        model.encoder.last_norm.weight[0] += 1
    rebuilt = build_index(model, recipe, "code")
    assert rebuilt.entries[0] == first.entries[0]
    assert not np.allclose(rebuilt.vectors, first.vectors)


def test_tasks_are_found_by_their_modalities(run):
    assert list(searchable(*run)) == ["text_to_image", "text_to_video", "text_to_code"]
    assert task_for(*run, "video") == "text_to_video"
    assert task_for(*run, "text", "code") == "text_to_code"
    with pytest.raises(ConfigError, match="no task of this run relates image to video"):
        task_for(*run, "video", "image")
    with pytest.raises(ConfigError, match="modality of task 'text_to_image'"):
        build_index(*run, "code", task="text_to_image")


def test_found_files_are_saved_as_they_were(run, tmp_path):
    model, recipe = run
    index = build_index(model, recipe, "image")
    hits = query(model, index, 2, text="red square")
    saved = save_hits(recipe, index, hits, tmp_path / "found")
    for hit, file in zip(hits, saved, strict=True):
        assert (
            file.read_bytes()
            == (recipe.folder.parent / "data" / f"{hit.entry.key}.png").read_bytes()
        )
    code = build_index(model, recipe, "code")
    (file,) = save_hits(recipe, code, query(model, code, 1, text="make a red square"), tmp_path)
    assert file.suffix == ".txt" and file.read_text("utf-8").startswith("def make_")


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (b"\x89PNG\r\n", ".png"),
        (b"\0\0\0\x18ftypisom", ".mp4"),
        (b"RIFF1234WAVE", ".wav"),
        (b"what", ""),
    ],
)
def test_suffixes_follow_the_contents(content, suffix):
    assert suffix_of(content) == suffix


def test_predictions_are_those_of_the_model(run):
    model, recipe = run
    (answer,) = predict(model, recipe, "text_classification", ["so good"])
    assert (
        answer["probability"]
        == max(answer["probabilities"].values())
        == answer["probabilities"][answer["class"]]
    )
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    (found,) = predict(model, recipe, "text_to_code", ["make a red square"], k=3)
    hits = query(model, build_index(model, recipe, "code"), 3, text="make a red square")
    assert [row["key"] for row in found["found"]] == [hit.entry.key for hit in hits]


def test_a_broken_input_does_not_stop_the_others(run):
    model, recipe = run
    good = recipe.folder.parent / "data" / "test-0.wav"
    broken, heard = predict(model, recipe, "speech_recognition", ["/nowhere.wav", good])
    assert "no such file" in broken["error"] and set(heard["transcript"]) <= {"a", "b"}


def test_inputs_from_a_file_are_relative_to_it(run, tmp_path):
    recipe = run[1]
    (tmp_path / "in.jsonl").write_text(
        '{"sound": "a.wav", "who": "x"}\n\n{"sound": "/b.wav"}\n', "utf-8"
    )
    rows, own, _ = read_rows(recipe, "speech_recognition", str(tmp_path / "in.jsonl"))
    assert [row["sound"]["path"] for row in rows] == [str(tmp_path / "a.wav"), "/b.wav"]
    assert own == [{"sound": "a.wav", "who": "x"}, {"sound": "/b.wav", "who": None}]
    with pytest.raises(ConfigError, match="no column for the field 'text'"):
        read_rows(recipe, "text_classification", str(tmp_path / "in.jsonl"))
    assert read_words(("text",), ["so good"]) == [{"text": "so good"}]
    with pytest.raises(ConfigError, match="nothing to answer for"):
        read_words(("text",), [])
    with pytest.raises(ConfigError, match="the task is given text, second: write them as columns"):
        read_words(("text", "second"), ["a"])


def test_predictions_keep_the_inputs_own_columns(tmp_path):
    own, answers = (
        [{"text": "a", "class": "x"}, {"text": "b"}],
        [{"class": "y", "probability": 0.5}, {"error": "broken"}],
    )
    write_rows(tmp_path / "out.jsonl", own, answers)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    first = {"text": "a", "class": "x", "predicted_class": "y", "probability": 0.5}
    assert lines == [first, {"text": "b", "error": "broken"}]
    write_rows(tmp_path / "out.parquet", own, answers)
    assert pq.read_table(tmp_path / "out.parquet").to_pylist()[0] == {**first, "error": None}
    with pytest.raises(ConfigError, match=r"written as \.jsonl or \.parquet"):
        write_rows(tmp_path / "out.txt", own, answers)


def test_encode_tells_what_is_wrong(run):
    model, _ = run
    assert encode(model, "text_to_image", image=[]).shape == (0, 16)
    with pytest.raises(ConfigError, match="give one of"):
        encode(model, "text_to_image")
    with pytest.raises(ConfigError, match=r"write text=\[...\]"):
        encode(model, "text_to_image", text="one")
    with pytest.raises(
        ConfigError, match="unknown task 'text_to_imag'; did you mean 'text_to_image'"
    ):
        encode(model, "text_to_imag", text=["x"])
    with pytest.raises(BadInput, match=r"/nowhere\.png"):
        encode(model, "text_to_image", image=["/nowhere.png"])


def test_encode_does_not_depend_on_its_company(run):
    model, _ = run
    texts = ["red square", "a", "green square so good very bad"]
    together = encode(model, "text_to_image", text=texts)
    alone = np.concatenate([encode(model, "text_to_image", text=[text]) for text in texts])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-5)

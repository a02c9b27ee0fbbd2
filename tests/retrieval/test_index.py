"""The index: exact, cached as long as nothing changed, and honest about what it lacks."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import CAPTIONS, COLOURS

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.retrieval.index import held, searchable, task_for
from skillweave.retrieval.stored import index_of, open_index
from skillweave.storage import add_checksums


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures without captions, one of them broken, and files that are no items."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / ".thumbnails").mkdir()
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (20, 20), colour).save(
            folder / ("more" if i % 2 else "") / f"{colour}.png"
        )
    shutil.copy(folder / "red.png", folder / ".thumbnails" / "red.png")
    (folder / "broken.jpg").write_bytes(b"")
    (folder / "readme.md").write_text("no picture")
    return folder


def test_an_index_holds_every_sample_as_encode_gives_it(run: Path, predictor: sw.Predictor) -> None:
    index = open_index(predictor, run, "text_to_image", "image")
    assert [e.split for e in index.entries] == ["train"] * 6 + ["validation"] * 6 + ["test"] * 6
    file = run.parent / "data" / "test-2.png"
    at = next(i for i, e in enumerate(index.entries) if e.key == "test-2")
    alone = predictor.encode("text_to_image", image=[file])[0]
    np.testing.assert_allclose(index.vectors[at], alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-5)


def test_hits_are_the_best_by_brute_force(run: Path, predictor: sw.Predictor) -> None:
    index = open_index(predictor, run, "text_to_video", "video")
    asked = sw.encode(predictor, "text_to_video", text=["green moves"])[0]
    scores = [float(v @ asked) for v in index.vectors]
    hits = index.search(4, text="green moves")
    assert [h.score for h in hits] == pytest.approx(sorted(scores, reverse=True)[:4])
    assert all(scores[index.entries.index(h.entry)] == pytest.approx(h.score) for h in hits)


def test_an_image_finds_itself(run: Path, predictor: sw.Predictor) -> None:
    index = open_index(predictor, run, "text_to_image", "image")
    (hit,) = index.search(k=1, image=run.parent / "data" / "test-1.png")
    assert hit.entry.caption == "green square" and hit.score == pytest.approx(1, abs=1e-5)


def test_the_stored_index_is_used_until_the_weights_change(
    run: Path, predictor: sw.Predictor
) -> None:
    def built() -> sw.Index:
        return open_index(predictor, run, "text_to_code", "code")

    first = built()
    listing = run / "index" / "text_to_code.code.json"
    about = json.loads(listing.read_text("utf-8"))
    about["entries"][0]["caption"] = "read from the file"
    listing.write_text(json.dumps(about), "utf-8")
    with pytest.warns(UserWarning, match="damaged.*the index is built anew"):
        assert built().entries[0] == first.entries[0]
    listing.write_text(json.dumps(about), "utf-8")
    add_checksums(listing.parent, [listing.name])
    assert built().entries[0].caption == "read from the file"
    with torch.no_grad():
        predictor.model.encoder.last_norm.weight[0] += 1
    rebuilt = built()
    assert rebuilt.entries[0] == first.entries[0]
    assert not np.allclose(rebuilt.vectors, first.vectors)


def test_tasks_are_found_by_their_modalities(run: Path, predictor: sw.Predictor) -> None:
    assert list(searchable(predictor)) == ["text_to_image", "text_to_video", "text_to_code"]
    assert searchable(predictor)["text_to_code"] == {"text": "text", "code": "code"}
    assert task_for(predictor, "video") == "text_to_video"
    assert task_for(predictor, "text", "code") == "text_to_code"
    with pytest.raises(ConfigError, match="no task of this model relates image to video"):
        task_for(predictor, "video", "image")
    with pytest.raises(ConfigError, match="modality of task 'text_to_image'"):
        open_index(predictor, run, "text_to_image", "code")


def test_a_folder_of_pictures_without_captions(predictor: sw.Predictor, photos: Path) -> None:
    calls = []
    index = sw.Index.build(predictor, photos, progress=lambda *call: calls.append(call))
    assert (index.task, index.modality) == ("text_to_image", "image")
    keys = [f"more/{c}.png" if i % 2 else f"{c}.png" for i, c in enumerate(COLOURS)]
    assert {e.key for e in index.entries} == set(keys)
    assert [(skip.key, skip.reason) for skip in index.skipped] == [("broken.jpg", "0 bytes")]
    assert calls[-1] == ("text_to_image · image", 7, 7)
    (hit,) = index.search(image=photos / "more" / "grey.png", k=1)
    assert hit.entry.key == "more/grey.png" and hit.score == pytest.approx(1, abs=1e-5)
    assert hit.to_json() == {"score": hit.score, "key": "more/grey.png", "caption": ""}
    assert len(index.search(text="red square", k=3)) == 3
    alone = sw.Index.build(predictor, photos / "red.png")
    assert [e.key for e in alone.entries] == ["red.png"]


def test_captions_beside_files_and_in_tables_are_told(
    run: Path, predictor: sw.Predictor, photos: Path
) -> None:
    (photos / "red.txt").write_text("a red one\nanother\n")
    index = sw.Index.build(predictor, photos)
    assert {e.key: e.caption for e in index.entries if e.caption} == {"red.png": "a red one"}
    assert index.modality == "image"  # the caption is no item of its own
    texts = sw.Index.build(predictor, photos, modality="text")
    assert [(e.key, e.caption) for e in texts.entries] == [("red.txt", "a red one\nanother\n")]
    table = sw.Index.build(predictor, run.parent / "data" / "text_to_image.jsonl")
    assert [e.caption for e in table.entries[:6]] == CAPTIONS
    metadata = '{"file_name": "red.png", "text": "described"}\n'
    (photos / "metadata.jsonl").write_text(metadata)
    described = sw.Index.build(predictor, photos)
    assert [(e.key, e.caption) for e in described.entries] == [("red.png", "described")]


def test_an_index_of_own_data_is_stored_until_they_change(
    run: Path, predictor: sw.Predictor, photos: Path
) -> None:
    def built() -> sw.Index:
        return open_index(predictor, run, "text_to_image", "image", photos)

    first = built()
    (listing,) = (run / "index").glob("*/text_to_image.image.json")
    about = json.loads(listing.read_text("utf-8"))
    about["entries"][0]["caption"] = "read from the file"
    listing.write_text(json.dumps(about), "utf-8")
    with pytest.warns(UserWarning, match="damaged.*the index is built anew"):
        assert built().entries[0] == first.entries[0]
    listing.write_text(json.dumps(about), "utf-8")
    add_checksums(listing.parent, [listing.name])
    assert built().entries[0].caption == "read from the file"
    Image.new("RGB", (20, 20), "pink").save(photos / "pink.png")
    assert len(built().entries) == len(first.entries) + 1


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"entries": [5]}'])
@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_damaged_index_is_built_anew(
    run: Path, predictor: sw.Predictor, photos: Path, suffix: str, content: bytes
) -> None:
    def built() -> sw.Index:
        return open_index(predictor, run, "text_to_image", "image", photos)

    first = built()
    folder = run / "index" / hashlib.sha256(str(photos.resolve()).encode()).hexdigest()[:12]
    (folder / f"text_to_image.image.{suffix}").write_bytes(content)
    assert built().entries == first.entries
    assert np.array_equal(built().vectors, first.vectors)


def test_what_cannot_be_searched_is_told(
    predictor: sw.Predictor, photos: Path, tmp_path: Path
) -> None:
    assert held(predictor, photos) == [("text_to_image", "image")]
    (tmp_path / "other").mkdir()
    with pytest.raises(
        ConfigError, match=r"other: holds nothing that this model can search .*holds image"
    ):
        sw.Index.build(predictor, tmp_path / "other")
    with pytest.raises(ConfigError, match="no such file or folder"):
        sw.Index.build(predictor, tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"1 samples could be read \(broken\.jpg: 0 bytes\)"):
        sw.Index.build(predictor, photos / "broken.jpg")
    index = replace(sw.Index.build(predictor, photos), predictor=None)
    with pytest.raises(ConfigError, match="no model to encode queries"):
        index.search(text="red")


def test_predict_searches_an_index(run: Path, predictor: sw.Predictor) -> None:
    index = index_of(predictor, run, predictor.task("text_to_code"))
    (found,) = sw.predict(predictor, "text_to_code", ["make a red square"], index, k=3)
    assert found == {"found": [hit.to_json() for hit in index.search(3, text="make a red square")]}
    rows = [{"text": "make a red square", "own": 1}, {"text": ""}]
    again, broken = sw.predict(predictor, "text_to_code", rows, index, k=3)
    assert again["found"] == found["found"] and broken == {"error": "text without tokens"}
    with pytest.raises(ConfigError, match=r"an index; build one with sw\.Index\.build"):
        sw.predict(predictor, "text_to_code", ["make a red square"])

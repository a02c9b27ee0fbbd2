"""The commands `index` and `search`."""

import json
from pathlib import Path

import pytest
from PIL import Image

import skillweave as sw
from skillweave import cli


def test_search_prints_saves_and_lists(run, tmp_path, capsys):
    found = tmp_path / "found"
    words = ["search", str(run), "--in", "image", "red [square]", "--k", "2", "--out", str(found)]
    assert cli.main([*words, "--json", str(tmp_path / "l.json")]) == 0
    rows = json.loads((tmp_path / "l.json").read_text("utf-8"))
    assert [row["file"] for row in rows] == sorted(map(str, found.iterdir())) and len(rows) == 2
    shown = capsys.readouterr().out
    assert "image for red [square]" in shown and rows[0]["caption"] in shown
    assert cli.main([*words[:4], "blue square", *words[5:]]) == 2  # never two results in one folder
    assert "already exists" in capsys.readouterr().err and len(list(found.iterdir())) == 2


def test_search_by_a_file(run, capsys):
    image = run.parent / "data" / "test-1.png"
    assert cli.main(["search", str(run), "--image", str(image), "--in", "text", "--k", "1"]) == 0
    assert "square" in capsys.readouterr().out


def test_index_names_every_modality(run, capsys):
    assert cli.main(["index", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "text_to_image · image: 18 items"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures without captions."""
    (tmp_path / "photos").mkdir()
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (20, 20), colour).save(tmp_path / "photos" / f"{colour}.png")
    return tmp_path / "photos"


def test_own_photos_are_indexed_and_searched(run, photos, tmp_path, capsys):
    assert cli.main(["index", str(run), str(photos)]) == 0
    assert capsys.readouterr().out == "text_to_image · image: 3 items\n"
    (stored,) = (run / "index").glob("*/text_to_image.image.safetensors")
    changed = stored.stat().st_mtime_ns
    words = ["search", str(run), "red square", "--data", str(photos), "--k", "2"]
    found, listing = tmp_path / "found", tmp_path / "l.json"
    assert cli.main([*words, "--out", str(found), "--json", str(listing)]) == 0
    rows = json.loads(listing.read_text("utf-8"))
    expected = sw.Index.build(run, photos).search(text="red square", k=2)
    assert [row["key"] for row in rows] == [hit.entry.key for hit in expected]
    for row in rows:
        assert Path(row["file"]).read_bytes() == (photos / row["key"]).read_bytes()
    assert stored.stat().st_mtime_ns == changed  # search used what index has stored


def test_a_model_folder_searches_own_data_and_has_none_itself(run, photos, tmp_path, capsys):
    small = tmp_path / "small"
    sw.carve(sw.load(run), "text_to_image").save_pretrained(small)
    assert cli.main(["search", str(small), "red square", "--data", str(photos), "--k", "1"]) == 0
    assert ".png" in capsys.readouterr().out
    assert cli.main(["index", str(small)]) == 2
    assert "a model folder has no data of its own" in capsys.readouterr().err
    sw.carve(sw.load(run), "text_classification").save_pretrained(tmp_path / "classifier")
    assert cli.main(["index", str(tmp_path / "classifier")]) == 2
    assert "the model has no retrieval task" in capsys.readouterr().err


def test_an_index_in_a_folder_of_its_own(run, photos, tmp_path, capsys):
    kept = str(tmp_path / "kept")
    assert cli.main(["index", str(run), str(photos), "--out", kept, "--modality", "image"]) == 0
    assert capsys.readouterr().out == "text_to_image · image: 3 items\n"
    listing = tmp_path / "l.json"
    words = ["search", str(run), "red", "--data", kept, "--json", str(listing)]
    assert cli.main([*words, "--where", "key!=red.png", "--where", "key!=blue.png"]) == 0
    assert [row["key"] for row in json.loads(listing.read_text("utf-8"))] == ["green.png"]
    assert cli.main(["index", str(run), "--out", kept, "--delete", "red.png", "blue.png"]) == 0
    assert "text_to_image · image: 2 removed" in capsys.readouterr().out
    for wrong, told in [
        ([*words, "--where", "nothing"], "is no condition"),
        ([*words, "--where", "yeer=1"], "unknown column 'yeer'"),
        (["index", str(run), "--delete", "a"], "--delete removes items from the index in --out"),
        (["index", str(run), str(photos), "--modality", "sound"], "relates sound"),
    ]:
        assert cli.main(wrong) == 2
        assert told in capsys.readouterr().err

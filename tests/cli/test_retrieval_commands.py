"""The commands `index` and `search`."""

import json

from skillweave import cli


def test_search_prints_saves_and_lists(run, tmp_path, capsys):
    found = tmp_path / "found"
    words = ["search", str(run), "--in", "image", "red [square]", "--k", "2", "--out", str(found)]
    assert cli.main([*words, "--json", str(tmp_path / "l.json")]) == 0
    rows = json.loads((tmp_path / "l.json").read_text("utf-8"))
    assert [row["file"] for row in rows] == sorted(map(str, found.iterdir())) and len(rows) == 2
    shown = capsys.readouterr().out
    assert "image for red [square]" in shown and rows[0]["caption"] in shown


def test_search_by_a_file(run, capsys):
    image = run.parent / "data" / "test-1.png"
    assert cli.main(["search", str(run), "--image", str(image), "--in", "text", "--k", "1"]) == 0
    assert "square" in capsys.readouterr().out


def test_index_names_every_modality(run, capsys):
    assert cli.main(["index", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "text_to_image · image: 18 samples"

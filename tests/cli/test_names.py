"""A run over pictures whose names are not UTF-8, from training to search."""

import json
import os
from pathlib import Path

import yaml
from PIL import Image

from skillweave import cli


def test_names_in_another_encoding_from_training_to_search(tmp_path: Path, capsys) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(24):
        name = f"照片{i}".encode("gbk") if i % 2 else f"photo{i}".encode()
        file = Path(os.fsdecode(os.path.join(os.fsencode(photos), name + b".png")))
        Image.new("RGB", (32, 32), (i * 10, 0, 0)).save(file)
        if i == 5:
            file.write_bytes(b"broken")
        file.with_suffix(".txt").write_text(f"a red picture number {i}")
    streams = {"text": {"vocabulary": 200}, "image": {"size": 32, "patch": 16}}
    recipe = {
        "output": str(tmp_path / "run"),
        "model": {"width": 16, "streams": streams, "encoder": {"layers": 1, "heads": 2}},
        "tasks": {
            "text_to_image": {
                "data": {"path": str(photos), "fractions": [0.5, 0.25, 0.25]},
                "batch_size": 4,
            }
        },
        "training": {"steps": 9, "threads": 1, "validate_every": 1, "accelerator": "cpu"},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    run = str(tmp_path / "run")
    assert cli.main(["train", str(tmp_path / "r.yaml")]) == 0
    assert cli.main(["evaluate", run, "--bootstrap", "0"]) == 0
    (broken,) = map(json.loads, (tmp_path / "run" / "skipped.jsonl").read_text().splitlines())
    assert broken["key"].startswith("\\xd5\\xd5") and broken["key"].endswith("5.png")
    found, file = tmp_path / "found", tmp_path / "hits.json"
    words = ["search", run, "a red picture", "--k", "23", "--out", str(found), "--json", str(file)]
    assert cli.main(words) == 0
    hits = json.loads(file.read_text("utf-8"))
    assert sum(hit["key"].startswith("\\xd5\\xd5") for hit in hits) == 11
    assert all(Path(hit["file"]).read_bytes()[1:4] == b"PNG" for hit in hits)

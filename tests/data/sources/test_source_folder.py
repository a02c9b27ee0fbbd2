import pytest

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source, open_table

ALL = (1.0, 0.0, 0.0)


def write(root, **files):
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_pairs(tmp_path):
    write(
        tmp_path,
        **{
            "a.jpg": b"1", "a.txt": "one\n", "deep/b.PNG": b"2", "deep/b.txt": "two\n\nzwei\n", "alone.jpg": b"3",
            "lost.txt": "x", "empty.wav": b"", "empty.txt": " ", "a.webp": b"", ".hidden/c.jpg": b"", ".d.jpg": b"",
            "odd.xyz": b"", "f.py": "def f():\n    pass\n", "f.txt": "a function",
        },
    )  # fmt: skip
    source = open_source(DataConfig(path=str(tmp_path), fractions=ALL), "train")
    rows = {row["key"]: row for row in source}
    assert set(rows) == {"a.jpg", "deep/b.PNG", "f.py"}
    assert rows["a.jpg"]["text"] == "one" and rows["deep/b.PNG"]["text"] == ["two", "zwei"]
    assert rows["deep/b.PNG"]["image"] == {"bytes": None, "path": str(tmp_path / "deep/b.PNG")}
    assert rows["f.py"]["code"].startswith("def f") and rows["f.py"]["image"] is None
    reasons = dict(source.skipped)
    assert set(reasons) == {"alone.jpg", "lost.txt", "empty.txt", "a.webp", "odd.xyz"}
    assert (
        reasons["alone.jpg"] == "no caption: alone.txt expected beside it"
        and "second image" in reasons["a.webp"]
    )


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata(tmp_path, kind):
    lines = {
        "jsonl": (
            '{"file_name": "a.jpg", "text": "one"}\n{"file_name": "gone.jpg", "text":'
            ' "two"}\n{bad\n'
        ),
        "csv": 'file_name,text\na.jpg,one\ngone.jpg,two\n"bad\n',
    }[kind]
    write(tmp_path, **{"train/a.jpg": b"", "train/b.jpg": b"", f"train/metadata.{kind}": lines})
    source = open_source(DataConfig(path=str(tmp_path)), "train")
    assert list(source) == [
        {
            "key": "train/a.jpg",
            "image": {"bytes": None, "path": str(tmp_path / "train/a.jpg")},
            "text": "one",
            "split": "train",
        }
    ]
    bad, gone = {"jsonl": (3, 2), "csv": (4, 3)}[kind]  # the header is line 1 of a CSV
    expected = [f"train/metadata.{kind}:{bad}", f"train/metadata.{kind}:{gone}", "train/b.jpg"]
    assert [key for key, _ in source.skipped] == expected


def test_metadata_may_name_several_files(tmp_path):
    write(
        tmp_path,
        **{
            "a.mp4": b"",
            "a.wav": b"",
            "metadata.jsonl": '{"video_file_name": "a.mp4", "sound_file_name": "a.wav"}\n',
        },
    )
    row = open_source(DataConfig(path=str(tmp_path), fractions=ALL), "train")[0]
    assert (row["video"]["path"], row["sound"]["path"]) == (
        str(tmp_path / "a.mp4"),
        str(tmp_path / "a.wav"),
    )
    write(tmp_path, **{"metadata.jsonl": '{"text": "x"}\n'})
    with pytest.raises(ConfigError, match="needs a column 'file_name'; it has text"):
        open_table(str(tmp_path))


def test_classes_and_split_folders(tmp_path):
    names = [
        "train/cat/1.png",
        "train/dog/2.png",
        "test/cat/3.png",
        "validation/dog/4.png",
        "train/5.png",
    ]
    write(tmp_path, **{name: b"" for name in names})
    data = DataConfig(path=str(tmp_path))
    found = {
        split: [(r["key"], r["label"]) for r in open_source(data, split)]
        for split in ("train", "validation", "test")
    }
    assert found == {
        "train": [("train/cat/1.png", "cat"), ("train/dog/2.png", "dog")],
        "validation": [("validation/dog/4.png", "dog")],
        "test": [("test/cat/3.png", "cat")],
    }
    assert [key for key, _ in open_table(str(tmp_path)).skipped] == ["train/5.png"]


def test_texts_in_class_folders(tmp_path):
    write(tmp_path, **{"good/1.txt": "fine\nreally", "bad/2.txt": "poor", "bad/3.txt": b"\xff\xff"})
    source = open_source(DataConfig(path=str(tmp_path), fractions=ALL), "train")
    assert [(row["text"], row["label"]) for row in source] == [
        ("poor", "bad"),
        ("fine\nreally", "good"),
    ]
    assert [key for key, _ in source.skipped] == ["bad/3.txt"]


def test_an_empty_folder_and_one_saved_by_datasets(tmp_path):
    with pytest.raises(ConfigError, match="no rows"):
        open_source(DataConfig(path=str(tmp_path)), "train")
    write(tmp_path, **{"state.json": "{}"})
    with pytest.raises(ConfigError, match="write hf:"):
        open_table(str(tmp_path))

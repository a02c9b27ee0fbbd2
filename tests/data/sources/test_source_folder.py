import os

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


@pytest.mark.parametrize("fields", [["image"], ["sound"], ["image", "sound"]])
def test_tasks_over_media_alone_need_no_captions(tmp_path, fields):
    names = ["a.jpg", "deep/b.png", "deep/b.txt", "c.wav", "d.jpg", "d.flac", "e.txt"]
    write(tmp_path, **{name: b"x" for name in names})
    data = DataConfig(path=str(tmp_path), fractions=ALL)
    found = list(open_source(data, "train", fields))
    images, sounds = {"a.jpg", "deep/b.png", "d.jpg"}, {"c.wav", "d.flac"}
    expected = {"image": images, "sound": sounds}.get(
        fields[0] if len(fields) == 1 else "", {"d.jpg"}
    )
    keys = {row["key"] for row in found}
    assert keys == expected
    assert all(row[field]["path"].startswith(str(tmp_path)) for row in found for field in fields)
    skipped = dict(open_source(data, "train", fields).skipped)
    assert len(keys) + len(skipped) == 5  # b and d are one sample each
    assert all("which the task needs" in reason for reason in skipped.values())


def test_a_folder_of_texts_is_a_corpus(tmp_path):
    write(tmp_path, **{"a.txt": "one", "deep/b.txt": "two\nlines", "empty.txt": ""})
    source = open_source(DataConfig(path=str(tmp_path), fractions=ALL), "train", ["text"])
    assert [row["text"] for row in source] == ["one", "two\nlines"]
    assert [key for key, _ in source.skipped] == ["empty.txt"]


def test_columns_from_paths(tmp_path):
    names = [
        "day/train/cat/tom_1.jpg",
        "day/train/cat/tom_2.jpg",
        "day/train/dog/rex_1.jpg",
        "night/test/dog/ace_3.jpg",
        "day/odd.jpg",
    ]
    write(tmp_path, **{name: b"" for name in names})
    data = DataConfig(path=str(tmp_path), pattern="*/{split}/{label}/{animal}_*")
    train = open_source(data, "train", ["image", "label"])
    assert [(row["key"], row["label"]) for row in train] == [
        ("day/train/cat/tom_1.jpg", "cat"),
        ("day/train/cat/tom_2.jpg", "cat"),
        ("day/train/dog/rex_1.jpg", "dog"),
    ]
    reasons = dict(train.skipped)
    assert reasons == {"day/odd.jpg": "its path does not have the form of data.pattern"}
    assert len(open_source(data, "test", ["image", "label"])) == 1


def test_a_group_from_paths_stays_in_one_split(tmp_path):
    names = [f"{label}/{who}/{i}.wav" for label in "ab" for who in range(20) for i in range(3)]
    write(tmp_path, **{name: b"" for name in names})
    shares = (0.5, 0.25, 0.25)
    data = DataConfig(
        path=str(tmp_path), pattern="{label}/{speaker}/*", group="speaker", fractions=shares
    )
    splits = {}
    for split in ("train", "validation", "test"):
        for row in open_source(data, split, ["sound", "label"]):
            assert row["label"] == row["key"][0]
            splits.setdefault(row["key"].split("/")[1], set()).add(split)
    assert len(splits) == 20 and all(len(each) == 1 for each in splits.values())


def test_columns_from_paths_join_captions_and_metadata(tmp_path):
    pairs, table = tmp_path / "pairs", tmp_path / "table"
    write(pairs, **{"album/x/1.jpg": b"", "album/x/1.txt": "one"})
    write(table, **{"album/x/1.jpg": b"", "metadata.csv": "file_name,text\nalbum/x/1.jpg,one\n"})
    for folder in (pairs, table):
        data = DataConfig(path=str(folder), pattern="**/{album}/*", fractions=ALL)
        row = open_source(data, "train")[0]
        assert (row["text"], row["album"]) == ("one", "x")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("{a}/{a}", "redefinition"), ("*/*", "must name columns"), ("{key}/x", "other than key")],
)
def test_patterns_that_cannot_be(pattern, why):
    with pytest.raises(ValueError, match=why):
        DataConfig(path="photos", pattern=pattern)


def test_a_pattern_belongs_to_a_folder(tmp_path):
    write(tmp_path, **{"a.csv": "text\nx\n"})
    with pytest.raises(ConfigError, match=r"data\.pattern is for folders"):
        open_source(DataConfig(path=str(tmp_path / "a.csv"), pattern="{a}"), "train")


def test_captions_and_metadata_in_another_encoding(tmp_path):
    pairs, table = tmp_path / "pairs", tmp_path / "table"
    write(pairs, **{"1.jpg": b"", "1.txt": "你好吗".encode("gbk")})
    metadata = "file_name,text\n1.jpg,你好吗\n".encode("gbk")
    write(table, **{"1.jpg": b"", "metadata.csv": metadata})
    for folder in (pairs, table):
        data = DataConfig(path=str(folder), encoding="gbk", fractions=ALL)
        assert open_source(data, "train")[0]["text"] == "你好吗"
    (reason,) = dict(open_table(str(pairs)).skipped).values()
    assert "set data.encoding" in reason


def test_pipes_in_a_folder_are_skipped(tmp_path):
    write(tmp_path, **{"a.jpg": b"", "a.txt": "one", "b.jpg": b""})
    for name in ("b.txt", "c.jpg", "metadata.jsonl"):
        os.mkfifo(tmp_path / name)
    table = open_table(str(tmp_path))
    assert [row["key"] for row in table.rows] == ["a.jpg"]
    pipes = {key for key, reason in table.skipped if "a pipe" in reason}
    assert pipes == {"b.txt", "c.jpg", "metadata.jsonl"}

import io
import os

import numpy as np
import pytest
import soundfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
datasets = pytest.importorskip("datasets")

from skillweave.config import ConfigError  # noqa: E402
from skillweave.config.data import DataConfig  # noqa: E402
from skillweave.data.sources import open_source, open_table  # noqa: E402

ALL = (1.0, 0.0, 0.0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def labelled(count):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    return datasets.Dataset.from_dict(
        {"text": [f"t{i}" for i in range(count)], "label": [i % 2 for i in range(count)]}, features
    )


def test_own_splits_are_used_and_labels_are_names(tmp_path):
    datasets.DatasetDict({"train": labelled(5), "test": labelled(2)}).save_to_disk(
        str(tmp_path / "d")
    )
    path = f"hf:{tmp_path / 'd'}"
    train = open_source(DataConfig(path=path), "train")
    assert len(train) == 5 and train[3] == {
        "key": "train:4",
        "text": "t3",
        "label": "yes",
        "split": "train",
    }
    assert open_source(DataConfig(path=path), "test").column("label") == ["no", "yes"]
    with pytest.raises(
        ConfigError, match=r"no rows for the split 'validation'.*own splits are test, train"
    ):
        open_source(DataConfig(path=path), "validation")
    parts = DataConfig(path={"train": f"{path}@train", "validation": f"{path}@test"})
    assert len(open_source(parts, "validation")) == 2
    with pytest.raises(ConfigError, match="no split 'trian'; did you mean 'train'"):
        open_table(f"{path}@trian")


def test_one_split_is_divided_here(tmp_path):
    labelled(200).select(range(199, -1, -1)).save_to_disk(str(tmp_path / "d"))
    data = DataConfig(path=f"hf:{tmp_path / 'd'}")
    texts = [open_source(data, split).column("text") for split in ("train", "validation", "test")]
    assert (
        sorted(text for each in texts for text in each) == sorted(f"t{i}" for i in range(200))
        and len(texts[0]) > 130
    )


def test_sound_and_pictures_come_as_stored_bytes(tmp_path):
    wave = io.BytesIO()
    soundfile.write(wave, np.zeros(80), 8000, format="WAV")
    kinds = datasets.Features(
        {"audio": datasets.Audio(), "picture": datasets.Image(), "text": datasets.Value("string")}
    )
    plain = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    rows = {
        "audio": [{"bytes": wave.getvalue(), "path": "a.wav"}],
        "picture": [{"bytes": b"png", "path": None}],
        "text": ["one"],
    }
    stored = datasets.Dataset.from_dict(
        rows,
        datasets.Features({"audio": plain, "picture": plain, "text": datasets.Value("string")}),
    )
    datasets.Dataset(stored.data, info=datasets.DatasetInfo(features=kinds)).save_to_disk(
        str(tmp_path / "d")
    )
    table = open_table(f"hf:{tmp_path / 'd'}")
    assert table.media == {"audio", "picture"}
    columns = {"sound": "audio", "image": "picture"}
    row = open_source(
        DataConfig(path=f"hf:{tmp_path / 'd'}", columns=columns, fractions=ALL), "train"
    )[0]
    assert (
        row["sound"] == {"bytes": wave.getvalue(), "path": "a.wav"}
        and row["image"]["bytes"] == b"png"
    )


def test_class_labels_keep_their_names_in_lists_and_in_parquet(tmp_path):
    tags = datasets.ClassLabel(names=["O", "B-PER", "I-PER"])
    kinds = datasets.Features({
        "text": datasets.List(datasets.Value("string")),
        "tags": datasets.List(tags),
        "deep": datasets.List({"tag": tags, "n": datasets.Value("int64")}),
        "label": tags,
    })  # fmt: skip
    rows = {
        "text": [["Anna", "Lee", "sings"], ["so"], []],
        "tags": [[1, 2, 0], [-1], []],
        "deep": [[{"tag": 2, "n": 2}], [], [{"tag": 0, "n": 0}]],
        "label": [1, -1, None],
    }
    saved = datasets.Dataset.from_dict(rows, kinds)
    saved.save_to_disk(str(tmp_path / "d"))
    saved.to_parquet(tmp_path / "d.parquet")
    for path in (f"hf:{tmp_path / 'd'}", str(tmp_path / "d.parquet")):
        table = open_table(path)
        assert table.column("tags") == [["B-PER", "I-PER", "O"], [None], []]
        assert table.column("label") == ["B-PER", None, None]
        deep = [[{"tag": "I-PER", "n": 2}], [], [{"tag": "O", "n": 0}]]
        assert table.column("deep") == deep
        read = [table.read(i, ["tags", "deep", "label"]) for i in range(3)]
        assert [row["tags"] for row in read] == table.column("tags")
        assert [row["deep"] for row in read] == deep
        assert read[0]["label"] == "B-PER"


def test_load_dataset_on_a_folder_and_its_errors(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(f'{{"text": "t{i}"}}\n' for i in range(10)))
    assert len(open_table(f"hf:{folder}")) == 10
    assert open_table(f"hf:{folder}@train[:30%]").column("text") == ["t0", "t1", "t2"]
    for path, match in (
        (f"hf:{folder}:odd", "'odd' not found"),
        ("hf:nobody/nothing", "nobody/nothing"),
        (f"hf:{folder}@x", "x"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_table(path)

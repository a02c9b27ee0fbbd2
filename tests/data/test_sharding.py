"""Texts cut beforehand give the samples that the texts give, whoever cut them and however often it
was interrupted."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch

from skillweave import cli
from skillweave.cli.app import main
from skillweave.config import ConfigError
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.data.processors import train_tokenizer
from skillweave.data.sharding import ShardingConfig, write_shards
from skillweave.data.sources import open_table
from skillweave.data.sources.tokenized import COLUMN, TOKENIZER
from skillweave.recipe import RecipeConfig
from skillweave.storage import partial_name
from skillweave.tasks.resolve import resolve

TEXTS = [
    f"the {word} number {n} stands 在这里 [CLS] again"
    for n, word in enumerate(["cat", "dog", "é", "bird"] * 12)
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [{"key": f"k{i}", "text": text, "label": i % 3} for i, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    train_tokenizer(TEXTS, TrainedTokenizerConfig(), 200).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def sharding(folder: Path, out: str = "shards", **changes: Any) -> ShardingConfig:
    made = ShardingConfig(
        str(folder / "rows.jsonl"), "text", str(folder / "tokenizer.json"), str(folder / out), 10
    )
    return made._replace(**changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def recipe(folder: Path, path: str, tokenizer: bool = True, **task: Any) -> RecipeConfig:
    stream = {"tokenizer": {"path": str(folder / "shards")}} if tokenizer else {}
    tasks = {
        name: {"data": {"path": path}, **task} for name in ("masked_text", "text_classification")
    }
    return RecipeConfig.parse(
        {"model": {"streams": {"text": stream}}, "tasks": tasks, "training": {"steps": 1}}
    )


def test_samples_are_those_of_the_texts(source: Path) -> None:
    assert list(write_shards(sharding(source)))[-1] == (5, 5, 0)
    found = {}
    for name, path in (
        ("shards", str(source / "shards/*.arrow")),
        ("texts", str(source / "rows.jsonl")),
    ):
        run = resolve(recipe(source, path))
        found[name] = [run.dataset(task, "train", training=True) for task in run.tasks]
    for ours, theirs in zip(found["shards"], found["texts"], strict=True):
        assert len(ours) == len(theirs) > 30 and ours.keys == theirs.keys
        for i in range(len(ours)):
            one, other = (side.example(i, np.random.default_rng(i)) for side in (ours, theirs))
            assert torch.equal(one.spans[0].data, other.spans[0].data)
            assert one.labels == other.labels
            assert one.token_labels.keys() == other.token_labels.keys()
            for label, row in other.token_labels.items():
                assert torch.equal(one.token_labels[label], row)


def test_neither_workers_nor_interruptions_change_a_shard(source: Path) -> None:
    list(write_shards(sharding(source)))
    whole = contents(source / "shards")
    steps = write_shards(sharding(source, "again"))
    assert [next(steps) for _ in range(3)] == [(0, 5, 0), (1, 5, 0), (2, 5, 0)]
    steps.close()
    (source / "again/00000.arrow").unlink()
    partial_name(source / "again/00003.arrow").write_bytes(b"half")
    kept = os.stat(source / "again/00001.arrow").st_mtime_ns
    assert list(write_shards(sharding(source, "again"), workers=2)) == [
        (done, 5, 0) for done in range(1, 6)
    ]
    found = contents(source / "again")
    assert {name: found[name] for name in found if not name.startswith(".")} == whole
    assert os.stat(source / "again/00001.arrow").st_mtime_ns == kept


def test_only_what_is_asked_for_is_read(source: Path) -> None:
    list(write_shards(sharding(source)))
    table = open_table(str(source / "shards/*.arrow"))
    row = table.read(37, ["text"])["text"]
    assert row.ids.dtype == np.uint16 and not row.ids.flags.owndata  # a view of the mapped file
    again = pickle.loads(pickle.dumps(table))
    assert np.array_equal(again.read(37, ["text"])["text"].ids, row.ids) and again.read(
        37, ["label"]
    ) == {"label": 37 % 3}
    assert len(pickle.dumps(table)) < 2000


def test_what_does_not_go_together(source: Path) -> None:
    list(write_shards(sharding(source)))
    with pytest.raises(ConfigError, match="made with another rows; give another --out"):
        list(write_shards(sharding(source, rows=7)))
    train_tokenizer(TEXTS, TrainedTokenizerConfig(), 60).save(str(source / "other.json"))
    with pytest.raises(ConfigError, match="made with another fingerprint"):
        list(write_shards(sharding(source, tokenizer=str(source / "other.json"))))
    with pytest.raises(ConfigError, match="exists and holds no shards"):
        list(write_shards(sharding(source, out=".")))
    shards = str(source / "shards/*.arrow")
    with pytest.raises(
        ConfigError, match="on which no tokenizer can be trained; name the tokenizer"
    ):
        resolve(recipe(source, shards, tokenizer=False))
    data = recipe(source, shards).model_dump(mode="json")
    data["model"]["streams"]["text"]["tokenizer"]["path"] = str(source / "other.json")
    dataset = resolve(RecipeConfig.parse(data)).dataset("masked_text", "train")
    with pytest.raises(ConfigError, match="made with another tokenizer"):
        dataset.examples(0)
    words = recipe(source, shards, masking={"unit": "word"})
    dataset = resolve(words).dataset("masked_text", "train")
    with pytest.raises(ConfigError, match="needs the text itself"):
        dataset.examples(0)
    (source / "shards/00009.arrow").write_bytes(b"no arrow")
    with pytest.raises(
        ConfigError, match=r"00009\.arrow: not a shard that `skillweave shard` wrote"
    ):
        open_table(shards)


@pytest.mark.parametrize("offsets", [[0, 2, 10**6], [0, 3, 2], [-9, 0, 1]])
def test_damaged_offsets_are_told_before_they_are_followed(
    tmp_path: Path, offsets: list[int]
) -> None:
    ids = pyarrow.array([[7], [8, 9]], pyarrow.list_(pyarrow.uint16()))
    schema = pyarrow.schema([("text", ids.type)], {COLUMN: b"text", TOKENIZER: b"t"})
    file = tmp_path / "a.arrow"
    with pyarrow.ipc.new_file(str(file), schema) as writer:
        writer.write_batch(pyarrow.record_batch([ids], schema=schema))
    valid, damaged = (np.array(one, "int32").tobytes() for one in ([0, 1, 3], offsets))
    assert open_table(str(file)).column("text")[1].ids.tolist() == [8, 9]
    file.write_bytes(file.read_bytes().replace(valid, damaged))
    with pytest.raises(ConfigError, match=r"a\.arrow: not a shard that `skillweave shard` wrote"):
        open_table(str(file))


def test_the_command(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [
        "shard",
        str(source / "rows.jsonl"),
        "--tokenizer",
        str(source / "tokenizer.json"),
        "--out",
        str(source / "shards"),
    ]
    assert main([*call, "--rows", "20"]) == 0 and "3 shards" in capsys.readouterr().out
    assert main([*call, "--rows", "0"]) == 2


@pytest.mark.parametrize("command", ["shard", "vocabulary"])
def test_rows_without_text_are_counted(
    command: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (source / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"key": f"x{i}", "text": text}) + "\n"
            for i, text in enumerate([None, "", None])
        )
    options = {
        "shard": ["--tokenizer", str(source / "tokenizer.json"), "--out", str(tmp_path / "cut")],
        "vocabulary": ["--out", str(tmp_path / "new.json")],
    }
    assert cli.main([command, str(source / "rows.jsonl"), *options[command]]) == 0
    assert "3 rows hold no text in 'text'" in capsys.readouterr().out

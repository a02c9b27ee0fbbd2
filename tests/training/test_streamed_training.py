"""Training from shards, with batches by tokens: any part of the run gives the same weights."""

import json
import os
import signal
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.data.mixture import Mixture
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolve
from skillweave.training.errors import Interrupted
from skillweave.training.trainer import Trainer

WORDS = [
    "red",
    "green",
    "blue",
    "grey",
    "maroon",
    "white",
    "square",
    "circle",
    "so",
    "very",
    "good",
    "bad",
]
STEPS = 6


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    for shard in range(6):
        texts = [" ".join(rng.choice(WORDS, rng.integers(1, 14))) for _ in range(20)]
        labels = [None if i == 3 else f"{'good' in text}" for i, text in enumerate(texts)]
        table = pa.table({"text": texts, "label": labels})
        pq.write_table(table, folder / f"{shard}.parquet", row_group_size=5)
    return folder


def recipe(shards: Path, output: Path, **task: object) -> RecipeConfig:
    data = {
        "path": {"train": f"{shards}/[0-4].parquet", "validation": f"{shards}/5.parquet"},
        "shuffle_window": 16,
    }
    side = {"layers": 1, "heads": 2, "feed_forward": 32, "norm_position": "pre"}
    return RecipeConfig.parse(
        {
            "output": str(output),
            "model": {
                "width": 16,
                "streams": {
                    "text": {
                        "vocabulary": 80,
                        "max_length": 24,
                        "tokenizer": {"min_frequency": 1},
                    }
                },
                "encoder": side,
            },
            "tasks": {
                "text_classification": {"data": data, "batch_tokens": 60, **task},
                "masked_text": {"data": data, "batch_tokens": 80, "pack": 24},
            },
            "training": {
                "steps": STEPS,
                "threads": 1,
                "accelerator": "cpu",
                "log_every": 1,
                "bucket_batches": 3,
            },
        }
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last" / "model.safetensors")


@pytest.mark.filterwarnings("ignore")
def test_a_streamed_run_resumes_exactly_with_workers(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = sw.train(recipe(shards, tmp_path / "whole"), quiet=True)
    update = Trainer.update

    def stopping(self: Trainer, batches: object) -> int:
        if self.state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, batches)

    cut = recipe(shards, tmp_path / "cut")
    with patch.object(Trainer, "update", stopping), pytest.raises(Interrupted):
        sw.train(cut, quiet=True)
    training = cut.training.model_copy(update={"workers": 2})
    sw.train(cut.model_copy(update={"training": training}), resume=True, quiet=True)
    one, other = weights(whole), weights(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = (tmp_path / "cut" / "skipped.jsonl").read_text().splitlines()
    assert {json.loads(line)["reason"] for line in lines} == {"no label"}


def test_batches_by_tokens(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their positions, and that all rows come once in an epoch, but for those without a label."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ready = resolve(recipe(shards, tmp_path / "unused"))
    datasets = {name: ready.dataset(name, "train", training=True) for name in ready.tasks}
    mixture = Mixture(datasets, ready.recipe.training, ready.recipe.tasks)
    sums, keys = [], []
    batches = [mixture.batch_of("text_classification", number) for number in range(30)]
    for batch in batches:
        sums.append(int(batch.lengths.sum()))
        keys += batch.keys
    # windows of three short batches keep two standard deviations of room
    assert 45 < np.mean(sums) < 60 and max(sums) < 1.3 * 60
    seen = mixture.samples_of("text_classification", 0)
    assert len(batches[0].keys) == len(seen.rows)
    assert len(set(keys)) == 5 * 19  # five shards, with one row of twenty without a label


def test_what_batch_tokens_excludes(shards: Path, tmp_path: Path) -> None:
    settings = recipe(shards, tmp_path).model_dump(mode="json")
    settings["tasks"] = {"simcse": {"data": {"path": f"{shards}/0.parquet"}, "batch_tokens": 100}}
    with pytest.raises(ConfigError, match="compared, or grouped by batch_by, come by number"):
        resolve(RecipeConfig.parse(settings))

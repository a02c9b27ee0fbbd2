"""What the pretraining data of skillweave/tiny must leave out."""

import sys
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def held_out(monkeypatch):
    """The builder's module of this name. Two packs have a package `steps`."""
    monkeypatch.syspath_prepend(ROOT / "packs" / "tiny")
    for name in [name for name in sys.modules if name.partition(".")[0] == "steps"]:
        monkeypatch.delitem(sys.modules, name)
    module = import_module("steps.held_out")
    yield module.held_out
    for name in [name for name in sys.modules if name.partition(".")[0] == "steps"]:
        del sys.modules[name]


def emoji(*splits):
    table = pq.read_table(ROOT / "src/skillweave/data/packs/quickstart/emoji.parquet")
    return [
        [int(part, 16) for part in row["key"].split("-")]
        for row in table.select(["key", "split"]).to_pylist()
        if row["split"] in splits
    ]


def test_all_emoji_of_the_quickstarts_test_and_validation_are_held_out(held_out):
    assert all(held_out(points) for points in emoji("test", "validation"))
    assert not any(held_out(points) for points in emoji("train"))


def test_so_are_their_variants(held_out):
    for points in emoji("test", "validation"):
        assert held_out([point for point in points if point != 0xFE0F])
        assert held_out([points[0], 0x1F3FD, *points[1:]])

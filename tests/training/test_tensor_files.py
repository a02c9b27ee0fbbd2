"""Tensors in files that several processes wrote."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from skillweave.config import ConfigError
from skillweave.training.tensor_files import METADATA_FILE, load_whole, shapes

TENSORS = {
    "a/exp_avg": torch.randn(3, 4),
    "a/step": torch.tensor(5.0),
    "b": torch.randn(2, dtype=torch.bfloat16),
    "c": torch.tensor([1, 2], dtype=torch.int64),
    "d": torch.tensor([True, False]),
}


class Runs:
    """What a stranger's file may hold."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["SKILLWEAVE_TEST_FOLDER"],)


def test_tensors_are_read_back(tmp_path: Path) -> None:
    dcp.save(dict(TENSORS), storage_writer=dcp.FileSystemWriter(tmp_path), no_dist=True)
    found = load_whole(tmp_path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], x) for name, x in TENSORS.items())
    assert all(x.is_meta and x.dtype == TENSORS[n].dtype for n, x in shapes(tmp_path).items())


def test_a_description_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    monkeypatch.setenv("SKILLWEAVE_TEST_FOLDER", str(made))
    (tmp_path / METADATA_FILE).write_bytes(pickle.dumps(Runs()))
    with pytest.raises(ConfigError, match="no part of tensors"):
        shapes(tmp_path)
    assert not made.exists()

"""Tensors in files that several processes wrote, read by other numbers of processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import run_in_group
from safetensors import safe_open
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from skillweave.config import ConfigError
from skillweave.training.tensor_files import (
    load_into,
    load_whole,
    save_together,
    shapes,
    written_by,
)


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "a/exp_avg": torch.randn(5, 4),
        "a/step": torch.tensor(5.0),
        "one row": torch.randn(1, 3),
        "b": torch.randn(2, dtype=torch.bfloat16),
        "c": torch.tensor([1, 2], dtype=torch.int64),
        "d": torch.tensor([True, False]),
        "code/state1": torch.arange(7, dtype=torch.uint8),
        "code/step": torch.tensor(3),
    }


def in_parts(found: dict[str, Tensor], world: int) -> dict[str, Tensor]:
    mesh = init_device_mesh("cpu", (world,))
    return {n: distribute_tensor(x, mesh, [Shard(0)]) if x.ndim else x for n, x in found.items()}


def write(rank: int, world: int, folder: Path) -> list[str]:
    save_together(in_parts(tensors(), world), folder, dist.new_group())
    return [file.name for file in written_by(rank, folder)]


def read(rank: int, world: int, folder: Path) -> bool:
    empty = {name: torch.empty_like(x) for name, x in tensors().items()}
    found = in_parts(empty, world)
    load_into(found, folder)
    expected = in_parts(tensors(), world)
    parts = [(found[n], x) for n, x in expected.items()]
    return all(
        torch.equal(*(x.to_local() if x.ndim else x for x in pair))  # ty: ignore
        for pair in parts
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    found = tmp_path_factory.mktemp("parts") / "tensors"
    written = run_in_group(2, write, found)
    assert [len(names) for names in written] == [1, 1]
    assert sorted(file.name for file in found.iterdir()) == sorted(one for (one,) in written)
    return found


def test_one_process_reads_what_two_wrote(folder: Path) -> None:
    found, expected = load_whole(folder), tensors()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], x) for name, x in expected.items())
    assert all(x.is_meta and x.dtype == expected[n].dtype for n, x in shapes(folder).items())


def test_three_processes_read_what_two_wrote(folder: Path) -> None:
    assert run_in_group(3, read, folder) == [True] * 3


def test_the_files_are_safetensors_with_a_part_each(folder: Path) -> None:
    rows = []
    for file in sorted(folder.iterdir()):
        with safe_open(file, "pt") as stored:
            rows.append(stored.get_tensor("a/exp_avg"))
    assert [len(x) for x in rows] == [3, 2]
    assert torch.equal(torch.cat(rows), tensors()["a/exp_avg"])


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no safetensors file; restore"):
        shapes(tmp_path)
    file = tmp_path / "shard-00001-model-00001-of-00001.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=f"{tmp_path}: not the tensors of several processes"):
        shapes(tmp_path)
    (tmp_path / ".metadata").write_bytes(b"pickled")
    with pytest.raises(ConfigError, match="written by an earlier version of skillweave"):
        shapes(tmp_path)

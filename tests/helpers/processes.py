"""Several gloo processes for tests of collectives, forked, so that nothing is imported again."""

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from skillweave.training.parallel import Processes

FORK = multiprocessing.get_context("fork")
SECONDS = 300


def run_in_group(world: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """`work(rank, world, *args)` on each process; returns the results by rank. Raises what `work`
    raised, as RuntimeError, and TimeoutError if the processes do not end."""
    with tempfile.TemporaryDirectory() as folder, FORK.Manager() as manager:
        results = manager.dict()
        children = [
            FORK.Process(target=_run, args=(rank, world, folder, results, work, args))
            for rank in range(world)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(SECONDS)
        if any(child.is_alive() for child in children):
            for child in children:
                child.kill()
            raise TimeoutError(f"the processes did not end within {SECONDS} s")
        if failed := [str(results.get(rank)) for rank in range(world) if children[rank].exitcode]:
            raise RuntimeError(failed[0])
        return [results[rank] for rank in range(world)]


def _run(
    rank: int, world: int, folder: str, results: Any, work: Callable[..., Any], args: Any
) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    try:
        results[rank] = work(rank, world, *args)
        dist.barrier()
    except Exception as error:
        results[rank] = f"{type(error).__name__}: {error}"
        raise
    finally:
        dist.destroy_process_group()


class Group(LightningEnvironment):
    """The group of `run_in_group`, for Fabric."""

    creates_processes_externally = True

    def world_size(self) -> int:
        """Number of its processes."""
        return dist.get_world_size()

    def global_rank(self) -> int:
        """Of this process."""
        return dist.get_rank()

    local_rank = global_rank

    def set_world_size(self, size: int) -> None:
        """It has its size."""

    def set_global_rank(self, rank: int) -> None:
        """It has its rank."""


def fabric_in_group() -> Fabric:
    """Fabric for the processes of `run_in_group`, which it does not start again."""
    fabric = Fabric(
        accelerator="cpu",
        devices=dist.get_world_size(),
        strategy=Processes(start_method="popen"),
        plugins=[Group()],
    )
    fabric.launch()
    return fabric

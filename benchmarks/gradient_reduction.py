"""Averaging gradients over processes on a mixture of five modalities: ours against PyTorch's
DistributedDataParallel, which searches each step for the parameters that it does not use.

    python benchmarks/gradient_reduction.py [--json FILE] [--steps 20] [--processes 2 4] [--quick]

The model and the mixture of `recipes/quickstart.yaml` train on gloo processes of one thread each.
Steps alternate between two copies of the model: the same batches, the same fused AdamW; the losses
must agree at every step. Two figures for each number of processes: the bytes of gradients that we
send, by the bytes of the parameters that the step's task activates; and the time of DDP's step by
ours. DDP sends all parameters of the model in each step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from report import Figure, report
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import skillweave as sw
from skillweave.batch import Batch
from skillweave.data.mixture import Mixture
from skillweave.model.model import Model
from skillweave.tasks.resolve import resolve
from skillweave.training.reduction import GradientReducer
from skillweave.training.strategy import trained_parameters
from skillweave.training.trainer import LossModule

RECIPE = "recipes/quickstart.yaml"
AGREE = 1e-4
"""Largest relative difference of the two losses at any step."""


class Measured(NamedTuple):
    """Of one number of processes: seconds of each step of DDP and ours, bytes that ours sent and
    bytes that were active, and the largest difference of the losses."""

    ddp: list[float]
    ours: list[float]
    sent: int
    active: int
    difference: float


def timed(step: Callable[[Batch], Tensor], batch: Batch) -> tuple[float, float]:
    """The loss, and the seconds of the slowest process."""
    dist.barrier()
    start = time.perf_counter()
    loss = step(batch)
    seconds = torch.tensor(time.perf_counter() - start)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return loss.item(), seconds.item()


def work(rank: int, world: int, folder: str, steps: int, results: Any) -> None:
    """One process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store-{world}", rank=rank, world_size=world)
    recipe = sw.read_recipe(RECIPE, [f"training.steps={steps + 5}", f"training.devices={world}"])
    ready = resolve(recipe)
    datasets = {name: ready.dataset(name, "train", training=True) for name in recipe.tasks}
    mixture = Mixture(datasets, recipe.training, recipe.tasks, rank, world)
    torch.manual_seed(0)
    model = Model(ready.recipe.model, dict(ready.assets))
    other = Model(ready.recipe.model, dict(ready.assets))
    other.load_state_dict(model.state_dict())
    reducer = GradientReducer(trained_parameters(model), dist.new_group())
    wrapped = DistributedDataParallel(LossModule(other), find_unused_parameters=True)
    noise = torch.Generator()
    optimizers = {m: torch.optim.AdamW(m.parameters(), lr=1e-4, fused=True) for m in (model, other)}

    def update(one: Model, loss: Tensor) -> Tensor:
        loss.backward()
        if one is model:
            reducer.finish()
        optimizers[one].step()
        optimizers[one].zero_grad(set_to_none=True)
        return loss

    def ours(batch: Batch) -> Tensor:
        reducer.begin(active[batch.layout.task])
        reducer.overlap = True
        return update(model, model(batch, generator=noise).loss)

    def ddp(batch: Batch) -> Tensor:
        return update(other, wrapped(batch, noise, {}))

    active = {name: model.active_parameters(name) for name in recipe.tasks}
    sizes = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    found = Measured([], [], 0, 0, 0.0)
    for number in range(len(mixture)):
        batch = mixture[number]
        before = reducer.bytes_sent
        theirs, their_seconds = timed(ddp, batch)
        loss, seconds = timed(ours, batch)
        if number < len(mixture) - steps:  # the first steps warm up
            continue
        found.ddp.append(their_seconds)
        found.ours.append(seconds)
        found = found._replace(
            sent=found.sent + reducer.bytes_sent - before,
            active=found.active + sum(sizes[name] for name in active[batch.layout.task]),
            difference=max(found.difference, abs(loss / theirs - 1)),
        )
    if rank == 0:
        results[world] = tuple(found)
    dist.barrier()
    dist.destroy_process_group()


def figures_of(world: int, found: Measured) -> list[Figure]:
    """Its figures against their bounds."""
    ratio = statistics.median(a / b for a, b in zip(found.ddp, found.ours, strict=True))
    sent = found.sent / found.active
    name = f"{world} processes"
    return [
        Figure(f"{name}: bytes sent / active bytes", sent, "at most", 1.05, sent <= 1.05),
        Figure(f"{name}: step time, DDP / ours", ratio, "at least", 1.2, ratio >= 1.2),
        Figure(
            f"{name}: difference of losses",
            found.difference,
            "at most",
            AGREE,
            found.difference <= AGREE,
        ),
    ]


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--steps", type=int, default=20, help="timed steps (default 20)")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--quick", action="store_true", help="two steps: measures nothing")
    options = parser.parse_args()
    steps = 2 if options.quick else options.steps
    figures = []
    with mp.Manager() as manager:
        results = manager.dict()
        for world in options.processes:
            with tempfile.TemporaryDirectory() as folder:
                mp.spawn(work, (world, folder, steps, results), world)
            figures += figures_of(world, Measured(*results[world]))
    return report("Averaging gradients over gloo processes", figures, options.json)


if __name__ == "__main__":
    sys.exit(main())

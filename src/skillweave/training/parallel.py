"""Devices, processes, precision, signals and seeds: a thin layer over Lightning Fabric."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy

from skillweave.config import ConfigError
from skillweave.config.training import TrainingConfig

# Its notes on ranks and back ends are of no use to a person who watches a run.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

ROUTE_NOISE, DROPOUT = range(2)
"""Streams of random numbers, so that two uses of the same seed and step do not share numbers."""


class Autocast(MixedPrecision):
    """bf16 for the forward's operations.

    Inputs stay as they are: a waveform rounded to bf16 would lose its quiet parts, and Fabric's
    conversion cannot walk a frozen `Batch`.
    """

    def convert_input(self, data: Any) -> Any:
        """`data` itself."""
        return data


def make_fabric(config: TrainingConfig) -> Fabric:
    """Fabric for the recipe's devices and precision.

    Several processes run as DistributedDataParallel (gloo on CPU, NCCL on CUDA) with a search for
    unused parameters, as each step activates one task's skills only. Raises ConfigError when there
    are fewer devices than asked for.
    """
    kind = device_kind(config.accelerator)
    available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, config.devices)
    if config.devices > available:
        raise ConfigError(
            f"training.devices: {config.devices} asked for, but this machine has {available}"
            f" ({kind})"
        )
    # A named environment: Fabric would otherwise guess one from the variables of a batch system.
    plugins: list[Any] = [LightningEnvironment()]
    if config.precision == "bf16":
        if kind == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            warnings.warn(
                "bf16 is emulated on this CPU, about 100 times as slow as training.precision"
                " float32",
                stacklevel=2,
            )
        plugins.append(Autocast("bf16-mixed", kind))
    strategy = (
        DDPStrategy(start_method="spawn", find_unused_parameters=True)
        if config.devices > 1
        else "auto"
    )
    return Fabric(accelerator=kind, devices=config.devices, strategy=strategy, plugins=plugins)


def device_kind(accelerator: str) -> str:
    """`cpu`, `cuda` or `mps`. Raises ConfigError when the machine does not have what was asked
    for."""
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        return next(kind for kind, there in present.items() if there)
    if not present[accelerator]:
        raise ConfigError(
            f"training.accelerator: PyTorch finds no {accelerator!r} here; use 'auto' or 'cpu'"
        )
    return accelerator


def launch(fabric: Fabric, work: Callable[..., Any], *args: Any) -> Any:
    """`work(fabric, *args)` on every process; what the first one returns.

    With several processes the caller's own only waits: it passes SIGINT and SIGTERM on to them as
    SIGTERM.
    """
    if fabric.world_size == 1:
        return fabric.launch(work, *args)

    def forward(number: int, frame: FrameType | None) -> None:
        for process in multiprocessing.active_children():
            if process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)

    with Signals(forward):
        return fabric.launch(partial(part, work), *args)


def part(work: Callable[..., Any], fabric: Fabric, *args: Any) -> Any:
    """One process's part, which leaves the group in good order: an open one may abort the process
    at its exit."""
    result = work(fabric, *args)
    fabric.barrier()
    torch.distributed.destroy_process_group()
    return result


class Signals:
    """While entered, SIGINT and SIGTERM go to a handler; outside the main thread Python cannot, and
    nothing changes."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self.handler = handler
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self.before = {
                number: signal.signal(number, self.handler)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class StopRequest:
    """Remembers the first SIGINT or SIGTERM, for the loop to look at; a second SIGINT ends at
    once."""

    def __init__(self) -> None:
        self.signal = 0
        self.interrupts = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. Raises KeyboardInterrupt on a second SIGINT."""
        self.interrupts += number == signal.SIGINT
        if self.interrupts > 1:
            raise KeyboardInterrupt
        self.signal = self.signal or number


def ignore_signals(worker: int) -> None:
    """Set-up of a data worker, which ends when the training process does.

    Ctrl-C reaches the whole group, and the training process still needs its data to finish the
    step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def derive(*numbers: int) -> int:
    """A 63-bit seed from numbers; every tuple of the same length gives its own."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def route_noise(seed: int, step: int) -> torch.Generator:
    """The generator of a step's route noise, on the CPU: the same numbers on all processes and
    devices."""
    return torch.Generator().manual_seed(derive(seed, ROUTE_NOISE, step, 0))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed dropout for a step and process, so that a resumed run needs no stored random state."""
    torch.manual_seed(derive(seed, DROPOUT, step, rank))


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """One picklable value from every process, in order."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values

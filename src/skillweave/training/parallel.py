"""Devices, processes and precision, with Lightning Fabric."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import partial, singledispatch
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import nn

from skillweave.config import ConfigError
from skillweave.config.parallel import (
    ExpertConfig,
    ParallelConfig,
    ParallelSettings,
    ReplicatedConfig,
    ShardedConfig,
)
from skillweave.config.training import TrainingConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.training.mesh import Place
from skillweave.training.replica import Replica, divide
from skillweave.training.signals import handle_signals
from skillweave.training.strategy import Copies, Strategy, broadcast

# Fabric's messages on ranks and back ends do not help the user.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


class Autocast(MixedPrecision):
    """Autocast to bf16 in the forward pass. Inputs are not converted.

    A waveform in bf16 would lose its quiet parts, and Fabric cannot convert a frozen `Batch`.
    """

    def convert_input(self, data: Any) -> Any:
        """`data`, unchanged."""
        return data


class Processes(DDPStrategy):
    """Several processes in a group. What each has of the model is for `Strategy` to say, not for
    DistributedDataParallel, which needs the same active parameters on all of them."""

    def setup_module(self, module: nn.Module) -> Any:
        """`module`, unchanged."""
        return module


def make_fabric(config: TrainingConfig) -> Fabric:
    """Fabric for the devices and precision of a recipe.

    Several processes communicate through gloo on CPU, and through NCCL on CUDA. Raises ConfigError
    if there are fewer devices than requested.
    """
    if config.devices % config.parallel.replica_size:
        raise ConfigError(
            f"training.parallel needs a multiple of {config.parallel.replica_size} processes"
            f" (tensor × pipeline), and training.devices is {config.devices}; change one of them"
        )
    kind = device_kind(config.accelerator)
    nodes, external = 1, started_by_torchrun()
    if external:
        nodes = config.devices // int(os.environ["LOCAL_WORLD_SIZE"])
    devices = config.devices // nodes
    available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, devices)
    if devices > available:
        raise ConfigError(
            f"training.devices: {devices} requested, but this machine has {available} ({kind})"
        )
    # Without a named environment, Fabric guesses one from the variables of a batch system.
    plugins: list[Any] = [TorchElasticEnvironment() if external else LightningEnvironment()]
    if config.precision == "bf16":
        if kind == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            warnings.warn(
                "bf16 is emulated on this CPU, about 100 times as slow as training.precision"
                " float32",
                stacklevel=2,
            )
        plugins.append(Autocast("bf16-mixed", kind))
    strategy: Any = "auto"
    if config.devices > 1 or external:
        strategy = Processes(start_method="popen" if external else "spawn")
    return Fabric(
        accelerator=kind, devices=devices, num_nodes=nodes, strategy=strategy, plugins=plugins
    )


def started_by_torchrun() -> bool:
    """Whether this process is one of those that torchrun started, on one machine or several."""
    return dist.is_available() and dist.is_torchelastic_launched()


def was_restarted() -> bool:
    """Whether torchrun started the processes again after some of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def join_group(fabric: Fabric) -> None:
    """Join the group of the processes that torchrun started.

    PyTorch 2.13 uses one store for all attempts of a run. After a restart the processes would find
    the addresses of those that have died there, and wait for them.
    """
    if was_restarted() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*place, is_master=False)
        attempt = dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
        dist.init_process_group(
            "nccl" if fabric.device.type == "cuda" else "gloo",
            store=attempt,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
    fabric.launch()


def with_started_processes(recipe: RecipeConfig) -> RecipeConfig:
    """The recipe with the number of processes that torchrun started. Raises ConfigError if it asks
    for another."""
    count, devices = int(os.environ["WORLD_SIZE"]), recipe.training.devices
    if devices not in (1, count):
        raise ConfigError(
            f"training.devices is {devices}, but torchrun started {count} processes; leave"
            " training.devices out, or start as many"
        )
    settings = recipe.training.model_dump(exclude_unset=True) | {"devices": count}
    training = TrainingConfig.parse(settings, "training")
    return recipe.model_copy(update={"training": training})


def device_kind(accelerator: str) -> str:
    """`cpu`, `cuda` or `mps`. Raises ConfigError if the machine does not have the requested
    kind."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        return next(kind for kind, present in available.items() if present)
    if not available[accelerator]:
        raise ConfigError(
            f"training.accelerator: PyTorch finds no {accelerator!r} here; use 'auto' or 'cpu'"
        )
    return accelerator


def launch(fabric: Fabric, work: Callable[..., Any], *args: Any) -> Any:
    """Run `work(fabric, *args)` on every process and return the result of the first one.

    With several processes, the calling process only waits. It forwards SIGINT and SIGTERM to them
    as SIGTERM.
    """
    if fabric.world_size == 1:
        return fabric.launch(work, *args)

    def forward(number: int, frame: FrameType | None) -> None:
        for process in multiprocessing.active_children():
            if process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)

    with handle_signals(forward):
        return fabric.launch(partial(_run_in_group, work), *args)


def _run_in_group(work: Callable[..., Any], fabric: Fabric, *args: Any) -> Any:
    """Run `work`, then leave the process group: an open one may abort the process at its exit."""
    result = work(fabric, *args)
    leave_group(fabric)
    return result


def leave_group(fabric: Fabric) -> None:
    """Wait for all processes and leave their group."""
    fabric.barrier()
    dist.destroy_process_group()


def make_strategy(
    fabric: Fabric, config: ParallelConfig, model: Model, active: Mapping[str, Collection[str]]
) -> Strategy:
    """What spreads the model over the processes. `active`: task → names of the parameters that it
    activates. Raises ConfigError for a model that cannot be spread so."""
    if fabric.world_size == 1:
        return Copies(model, Replica(Place()))
    broadcast(model)
    place = Place.of(fabric.global_rank, fabric.world_size, config)
    return _spread(config, model, divide(model, place, config, fabric), active)


@singledispatch
def _spread(
    config: ParallelSettings, model: Model, replica: Replica, active: Mapping[str, Collection[str]]
) -> Strategy:
    raise TypeError(f"no strategy is registered for {type(config).__name__}")


@_spread.register
def _(
    config: ReplicatedConfig, model: Model, replica: Replica, active: Mapping[str, Collection[str]]
) -> Strategy:
    return Copies(model, replica)


@_spread.register
def _(
    config: ShardedConfig, model: Model, replica: Replica, active: Mapping[str, Collection[str]]
) -> Strategy:
    from skillweave.training.sharding import Shards  # imports much of PyTorch

    return Shards(model, replica, active, reshard=config.reshard, offload=config.offload)


@_spread.register
def _(
    config: ExpertConfig, model: Model, replica: Replica, active: Mapping[str, Collection[str]]
) -> Strategy:
    from skillweave.training.expert_parallel import ExpertParallel

    return ExpertParallel(model, replica)


def gather_objects(fabric: Fabric, value: Any) -> list[Any]:
    """The picklable values of all processes, by rank."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(values, value)
    return values

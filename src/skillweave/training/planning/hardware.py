"""What processors and links do: published figures of GPUs, measured ones of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from skillweave.config import ConfigError, choose
from skillweave.training.planning.trace import StepTrace

GIGA = 1e9


@dataclass(frozen=True)
class Hardware:
    """A processor and its links. Rates are per second.

    `memory`: bytes. `flops`: floating-point operations by precision, dense, with accumulation in
    float32. `bandwidth`: bytes of its memory. `link`: bytes in each direction between processors of
    a node; `network`: the same between nodes, for each processor. `host`: bytes in each direction
    to the memory of the host. `per_node`: processors of a node. `latency`: seconds until a
    message of a collective arrives, in a node and between nodes. `overhead`: seconds that each
    operation takes at least. `efficiency`: the share of `flops` and of the bandwidths that
    training reaches. `source`: where the figures are from.
    """

    name: str
    memory: float
    flops: Mapping[str, float]
    bandwidth: float
    link: float
    network: float
    host: float
    per_node: int
    latency: tuple[float, float] = (5e-6, 2e-5)
    overhead: float = 5e-6
    efficiency: float = 0.5
    source: str = ""

    def seconds(
        self, trace: StepTrace, precision: str, update: bool = False, share: float = 1.0
    ) -> float:
        """Time of a micro-batch's forward and backward pass, or of its update: each operation
        takes the time of its computation or that of its memory traffic, whichever is longer, and
        at least `overhead`. `share`: of each operation that a processor does."""
        rate = self.flops[precision] * self.efficiency / share
        traffic = self.bandwidth * 0.8 / share
        return sum(
            count * max(one.flops / rate, one.bytes / traffic, self.overhead)
            for one, count in trace.operations.items()
            if (one.phase == "optimizer") == update
        )


GPUS: dict[str, Hardware] = {
    "v100": Hardware(
        "V100 SXM2",
        32e9,
        {"float32": 15.7e12, "bf16": 125e12},
        900e9,
        150e9,
        6.25e9,
        16e9,
        8,
        efficiency=0.4,
        source="NVIDIA V100 data sheet (125 TFLOPS are for fp16; bf16 is not supported): 300 GB/s"
        " NVLink, both directions; DGX-1: four 100 Gb/s ports for 8 GPUs",
    ),
    "a100": Hardware(
        "A100 SXM",
        80e9,
        {"float32": 19.5e12, "bf16": 312e12},
        2039e9,
        300e9,
        25e9,
        32e9,
        8,
        source="NVIDIA A100 80GB data sheet: 600 GB/s NVLink, both directions; DGX A100: one 200"
        " Gb/s port for each GPU",
    ),
    "h100": Hardware(
        "H100 SXM",
        80e9,
        {"float32": 67e12, "bf16": 989e12},
        3350e9,
        450e9,
        50e9,
        64e9,
        8,
        efficiency=0.4,
        source="NVIDIA H100 data sheet: 900 GB/s NVLink, both directions; DGX H100: one 400 Gb/s"
        " port for each GPU",
    ),
    "h200": Hardware(
        "H200 SXM",
        141e9,
        {"float32": 67e12, "bf16": 989e12},
        4800e9,
        450e9,
        50e9,
        64e9,
        8,
        efficiency=0.4,
        source="NVIDIA H200 data sheet: 900 GB/s NVLink, both directions; DGX H200: one 400 Gb/s"
        " port for each GPU",
    ),
}
"""Published figures by name."""


def find_gpu(name: str | None, gigabytes: float | None) -> Hardware:
    """A GPU by name, or the first one with so much memory; its memory is then as given. Raises
    ConfigError for an unknown name."""
    if name is None:
        wanted = (gigabytes or 80) * GIGA
        fitting = [key for key, one in GPUS.items() if one.memory >= wanted * 0.99]
        name = fitting[0] if fitting else "h200"
    found = choose(GPUS, name, "GPU")
    if gigabytes is None:
        return found
    if gigabytes <= 0:
        raise ConfigError(f"--gpu-memory {gigabytes}: give the gigabytes of a GPU, such as 32")
    return replace(found, memory=gigabytes * GIGA)


def this_cpu(
    memory: float, seconds: float = 0.3, clock: Callable[[], float] = time.perf_counter
) -> Hardware:
    """This machine's processor, with the rates that a matrix product, a copy and a small operation
    reach now, on PyTorch's threads. It takes about three times `seconds`. `clock`: such as
    `time.process_time` for one thread on a busy machine."""
    side = 768
    a, b = torch.randn(side, side), torch.randn(side, side)
    large, target = torch.randn(1 << 24), torch.empty(1 << 24)
    small = torch.randn(8)
    product = _repeat(lambda: torch.mm(a, b), seconds, clock)
    copied = _repeat(lambda: torch.add(large, 1.0, out=target), seconds, clock)
    tiny = _repeat(lambda: small + 1.0, seconds / 3, clock)
    flops = 2 * side**3 / product
    bandwidth = 2 * large.nbytes / copied
    return Hardware(
        "this CPU",
        memory,
        {"float32": flops, "bf16": flops / 80},
        bandwidth / 0.8,
        bandwidth / 4,
        1e9,
        bandwidth,
        1,
        overhead=3 * tiny,
        efficiency=0.9,
        source="measured",
    )


def _repeat(work: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Median seconds of a call."""
    work()
    times, began = [], clock()
    while clock() - began < seconds or len(times) < 3:
        start = clock()
        work()
        times.append(clock() - start)
    return sorted(times)[len(times) // 2]

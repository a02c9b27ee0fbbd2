"""Parallel layouts: how GPUs divide a step, what each of them then holds, sends and computes.

With t GPUs for tensor, p for pipeline and e for expert parallelism, the other ones are replicas, or
share weights, gradients and optimizer state by ZeRO (arXiv 1910.02054). All layouts of a plan train
the same samples in a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from skillweave.training.planning.hardware import Hardware
from skillweave.training.planning.trace import StepTrace

RESERVED = 1.5e9
"""Bytes of a GPU that CUDA, its libraries and communication buffers take."""
FRAGMENTATION = 1.08
"""Memory that the allocator holds, relative to that of tensors."""
BACKWARD_SHARE = 2 / 3
"""Share of a step's computation in its backward pass, which communication can overlap with."""


@dataclass(frozen=True)
class Model:
    """What layouts ask of a model and a task's micro-batch.

    `trace`: of a micro-batch. `weights`: numbers of all weights; `trained`: of those that are
    trained; `block`: of all Transformer blocks; `experts`: of the experts behind gates that look at
    the data, of which a layer has `experts_in_layer`; `unit`: of the largest part that is gathered
    at once (a block, or an embedding). `layers`, `width`: of the encoder. `divisor`: a multiple of
    every number of GPUs that can share its heads and feed-forwards. `state_bytes`: of the optimizer
    for each trained weight. `compute_bytes`: of a number in the forward pass.
    """

    trace: StepTrace
    weights: int
    trained: int
    blocks: int
    experts: int
    unit: int
    layers: int
    divisor: int
    width: int
    expert_layers: int
    experts_in_layer: int
    state_bytes: int
    compute_bytes: int


@dataclass(frozen=True)
class Layout:
    """`data` replicas of `tensor` × `pipeline` GPUs. Their weights are shared as `zero` says (0:
    not at all; 2: gradients and optimizer state; 3: weights too). `expert`: the replicas among
    which experts are divided. `offload`: the shared parts are on the host."""

    data: int
    zero: int = 0
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    offload: bool = False

    @property
    def parallel(self) -> dict[str, Any]:
        """`training.parallel` of a recipe."""
        kind = "expert" if self.expert > 1 else "sharded" if self.zero else "replicated"
        found: dict[str, Any] = {"kind": kind}
        found |= {"reshard": True} if self.zero == 3 else {}
        found |= {"offload": True} if self.offload else {}
        found |= {"tensor": self.tensor} if self.tensor > 1 else {}
        return found | ({"pipeline": self.pipeline} if self.pipeline > 1 else {})

    @property
    def name(self) -> str:
        """Such as `sharded, reshard × 12, tensor × 8`, in the words of a recipe."""
        settings = self.parallel
        flags = [name for name in ("reshard", "offload") if name in settings]
        parts = [f"{', '.join([settings['kind'], *flags])} × {self.data}"] if self.data > 1 else []
        parts += [f"{n} × {settings[n]}" for n in ("tensor", "pipeline") if n in settings]
        return ", ".join(parts) or "one GPU"


@dataclass(frozen=True)
class Estimate:
    """What a layout needs on each GPU. Memory is in bytes: of `weights`, `gradients`, optimizer
    `state`, `activations` with inputs, and `other` (gathered weights, copies in 16 bits, reserved).
    `sent`: bytes that a GPU sends in a step. Times are in seconds: of `computation`, of the part of
    `communication` that computation does not hide, of the pipeline's `bubble`, and of the `step`.
    `samples_per_second`: of all GPUs. `utilisation`: share of the published operations per second.
    """

    layout: Layout
    accumulation: int
    weights: float
    gradients: float
    state: float
    activations: float
    other: float
    sent: float
    computation: float
    communication: float
    bubble: float
    step: float
    samples_per_second: float
    utilisation: float
    capacity: float

    @property
    def memory(self) -> float:
        """Bytes of a GPU."""
        held = self.weights + self.gradients + self.state + self.activations + self.other
        return held * FRAGMENTATION + RESERVED

    @property
    def fits(self) -> bool:
        """Whether a GPU has as much."""
        return self.memory <= self.capacity

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        names = ("weights", "gradients", "state", "activations", "other", "memory")
        times = ("computation", "communication", "bubble", "step")
        layout = self.layout
        return {
            "layout": layout.name,
            "fits": self.fits,
            "settings": {
                "devices": layout.data * layout.tensor * layout.pipeline,
                "gradient_accumulation_steps": self.accumulation,
                "parallel": layout.parallel,
            },
            "bytes": {name: round(getattr(self, name)) for name in names},
            "bytes_sent": round(self.sent),
            "seconds": {name: getattr(self, name) for name in times},
            "samples_per_second": self.samples_per_second,
            "utilisation": self.utilisation,
        }


def possible(model: Model, gpus: int, hardware: Hardware) -> Iterator[Layout]:
    """The layouts of so many GPUs that training can do: tensor parallelism inside of a node, at
    most 16 equal stages."""
    sizes = [n for n in range(1, gpus + 1) if gpus % n == 0]
    for tensor in (t for t in sizes if t <= hardware.per_node and not model.divisor % t):
        for pipeline in (p for p in sizes if p <= 16 and model.layers % p == 0):
            if gpus % (tensor * pipeline):
                continue
            data = gpus // (tensor * pipeline)
            yield Layout(data, 0, tensor, pipeline)
            if data > 1 and pipeline == 1:
                for zero in (2, 3):
                    yield Layout(data, zero, tensor)
                    yield Layout(data, zero, tensor, offload=True)
    if gpus > 1 and model.experts and not model.experts_in_layer % gpus:
        yield Layout(gpus, expert=gpus)


def estimate(
    model: Model, layout: Layout, hardware: Hardware, precision: str, samples: int
) -> Estimate | None:
    """What a layout needs for a step of `samples` samples in all; None where the replicas cannot
    divide them, or have fewer micro-batches than stages. Micro-batches are as large as the traced
    one, or smaller if there are too few samples for all replicas."""
    micro_batch = min(model.trace.samples, samples // layout.data)
    if not micro_batch or samples % (layout.data * micro_batch):
        return None
    accumulation = samples // (layout.data * micro_batch)
    if layout.pipeline > accumulation:
        return None
    model = replace(model, trace=model.trace.of_samples(micro_batch))
    trace = model.trace
    t, p, d, e = layout.tensor, layout.pipeline, layout.data, layout.expert
    own = _numbers(model, model.weights, t, p, e)
    trained = own * model.trained / model.weights
    shards = d if layout.zero else 1
    on_host = layout.offload and layout.zero == 3
    weights = 0.0 if on_host else 4 * own / (shards if layout.zero == 3 else 1)
    # without gathering one by one, gradients are averaged after the last micro-batch
    whole = layout.zero == 0 or (layout.zero == 2 and accumulation > 1)
    gradients = 4 * trained if whole else 0.0 if layout.offload else 4 * trained / shards
    state = 0.0 if layout.offload else model.state_bytes * trained / shards
    activations, gathered = _activations(model, layout, accumulation), 0.0
    copies = model.compute_bytes * own if model.compute_bytes < 4 else 0.0
    if layout.zero == 3:
        # two parts are there at once: one that computes, and the next one; with their gradients
        gathered = 2 * (model.compute_bytes + 4) * model.unit / t
        copies = 0.0
    elif d > 1:
        gathered = gradients if not layout.zero else 4 * 2 * model.unit / t  # buckets
    computation = accumulation * hardware.seconds(trace, precision, share=1 / t) / p
    update = hardware.seconds(trace, precision, update=True) / (t * p * (d if layout.zero else 1))
    bubble = computation * (p - 1) / accumulation if p > 1 else 0.0
    sent, exposed = _communication(model, layout, hardware, accumulation, own, computation)
    if layout.offload:
        exposed += (4 * 2 * trained / shards) / hardware.host
    step = computation + update + bubble + exposed
    useful = trace.flops * accumulation * d
    peak = hardware.flops[precision] * d * t * p
    return Estimate(
        layout,
        accumulation,
        weights,
        gradients,
        state,
        activations,
        gathered + copies,
        sent,
        computation + update,
        exposed,
        bubble,
        step,
        samples / step,
        useful / (step * peak),
        hardware.memory,
    )


def _numbers(model: Model, count: int, tensor: int, pipeline: int, expert: int) -> float:
    """The weights of the fullest GPU: the first stage has its blocks and everything outside, which
    tensor parallelism copies."""
    dense = model.blocks - model.experts
    outside = count - model.blocks
    return outside + (dense / tensor + model.experts / (tensor * expert)) / pipeline


def _activations(model: Model, layout: Layout, accumulation: int) -> float:
    """Bytes of the fullest GPU. Tensor parallelism divides what attention and feed-forwards keep,
    and not the inputs of layers: 24 of 34 parts (arXiv 2205.05198, equation 2). The first stage of
    a pipeline keeps as many micro-batches as there are stages (1F1B)."""
    trace, t, p = model.trace, layout.tensor, layout.pipeline
    inside = trace.kept_by_blocks * (10 + 24 / t) / 34
    outside = trace.activations - trace.kept_by_blocks
    in_flight = min(p, accumulation)
    return inside * in_flight / p + max(outside, 0) + trace.inputs * in_flight


def _communication(
    model: Model,
    layout: Layout,
    hardware: Hardware,
    accumulation: int,
    own: float,
    computation: float,
) -> tuple[float, float]:
    """Bytes that a GPU sends in a step, and the seconds that computation does not hide."""
    trace, t, p, d, e = model.trace, layout.tensor, layout.pipeline, layout.data, layout.expert
    tokens_bytes = trace.tokens * model.width * model.compute_bytes
    sent = exposed = 0.0
    # gradients and weights among replicas, which overlaps with the backward pass
    if d > 1:
        trained = own * model.trained / model.weights
        rate, latency = _link(hardware, d * t * p, hardware.per_node // t)
        share = (d - 1) / d
        volume = 2 * 4 * trained * share
        if layout.zero == 2:
            volume = (4 * trained + model.compute_bytes * own) * share
        if layout.zero == 3:
            gathers = 2 * model.compute_bytes * own * accumulation
            volume = (4 * trained * accumulation + gathers) * share
        messages = (model.layers + 2) * (3 * accumulation if layout.zero == 3 else 1)
        seconds = volume / rate + messages * latency * _rounds(d)
        sent += volume
        exposed += max(seconds - 0.8 * BACKWARD_SHARE * computation, 0.05 * seconds)
    # two sums of all tokens in each layer, forward and backward, which nothing hides
    if t > 1:
        volume = 4 * 2 * (t - 1) / t * tokens_bytes * (model.layers / p) * accumulation
        latency = hardware.latency[0] * _rounds(t) * 4 * model.layers / p * accumulation
        sent += volume
        exposed += volume / (hardware.link * 0.8) + latency
    if p > 1:
        volume = 2 * tokens_bytes * accumulation
        rate, latency = _link(hardware, t * p)
        sent += volume
        exposed += 2 * (p - 1) * (tokens_bytes / rate + latency)
    if e > 1:
        volume = 4 * (e - 1) / e * tokens_bytes * model.expert_layers * accumulation
        rate, latency = _link(hardware, e)
        sent += volume
        exposed += volume / rate + 4 * model.expert_layers * accumulation * latency * _rounds(e)
    return sent, exposed


def _link(hardware: Hardware, span: int, ports: int = 1) -> tuple[float, float]:
    """Bytes per second of a collective, and the seconds of a message. `span`: the GPUs among which
    its group lies. `ports`: network ports of a node that the group's rings share."""
    if span <= hardware.per_node:
        return hardware.link * 0.8, hardware.latency[0]
    network = hardware.network * max(1, ports)
    return min(hardware.link, network) * 0.8, hardware.latency[1]


def _rounds(count: int) -> int:
    """Messages one after the other in a tree of so many processes."""
    return 2 * max(1, (count - 1).bit_length())

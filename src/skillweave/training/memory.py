"""Whether a step fits into memory, before the first one, and batches that do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from skillweave.batch import Batch, Example
from skillweave.config import ConfigError
from skillweave.config.training import TrainingConfig
from skillweave.data.processors.base import BadInput
from skillweave.model.model import Model
from skillweave.tasks.dataset import TaskDataset

if TYPE_CHECKING:
    from skillweave.training.planning.trace import StepTrace

FLOAT = 4
"""Bytes of a number."""
MARGIN = 1.05
"""What a step takes, relative to its tensors: kernels allocate some memory of their own."""
KERNELS = 3_000_000
"""Bytes that the code and the buffers of kernels add to a process in its first step: 2 to 3 MB in
most of ten small recipes of benchmarks/training/plan.py."""
LARGE_SHARE = 0.7
"""Share of the free memory from which on a warning is given."""
AUTO_SHARE = {"cpu": 0.5}
"""Share of the free memory that `batch_size: auto` fills with tensors, by kind of device. The C
library's allocator has been seen to hold 1.6 times as much (benchmarks/training/plan.py)."""
GPU_SHARE = 0.8
"""The same for other devices, whose allocator is PyTorch's."""
VECTORS_PER_LAYER = 80
"""Vectors of its width that a layer keeps for each position at most, attention included."""
ROWS_READ = 8
"""Samples that are read to learn how large those of a task are."""
MANY_SIZES, FEW_SIZES = 50_000, 64
"""Samples whose lengths are looked up in a table, and in a stream."""
MOST_SAMPLES = 4096
"""Largest batch that `batch_size: auto` tries."""


@dataclass(frozen=True)
class Need:
    """The memory of a step of a task on one process, in bytes: `held` all the time (gradients,
    optimizer state and, unless it is there already, the model), and for the `samples` of a
    micro-batch."""

    task: str
    samples: int
    held: int
    for_samples: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.held + self.for_samples

    def told(self, free: int) -> str:
        """A sentence with the remedy."""
        return (
            f"a step of task {self.task} takes about {self.total / 1e9:.2f} GB, and"
            f" {free / 1e9:.2f} GB are free ({self.held / 1e9:.2f} GB for gradients, optimizer and"
            f" model, {self.for_samples / 1e9:.2f} GB for {self.samples} samples); lower"
            f" tasks.{self.task}.batch_size and raise training.gradient_accumulation_steps, set"
            " training.activation_checkpointing: 1, or take shorter samples"
        )


class MemoryCheck:
    """Asks how much memory the steps of a run take, by tracing them without numbers.

    `model`: with its trained parts, on the host. `chunk_sizes`: see `Model.forward`. Processes of a
    CPU share its memory.
    """

    def __init__(
        self,
        model: Model,
        datasets: Mapping[str, TaskDataset],
        config: TrainingConfig,
        device: torch.device,
        chunk_sizes: Mapping[str, int | None] | None = None,
    ) -> None:
        self.model, self.datasets, self.config, self.device = model, datasets, config, device
        self.chunk_sizes = chunk_sizes or {}
        free = free_memory(device)
        shared = config.devices if device.type == "cpu" else 1
        self.free = None if free is None else free // shared
        self.trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._examples: dict[str, list[Example]] = {}

    def check(self, sizes: Mapping[str, int]) -> str:
        """A warning if the largest batches may not fit or fill most of the memory; empty if not.

        `sizes`: samples of a micro-batch by task. Raises ConfigError if batches of ordinary samples
        do not fit.
        """
        if self.free is None:
            return ""
        for task, size in sizes.items():
            if not self._may_matter(task, size):
                continue
            examples = self.examples(task)
            ordinary = self.need(task, self._batch(task, examples[len(examples) // 2 :][:1], size))
            if ordinary.total > self.free:
                raise ConfigError(ordinary.told(self.free))
            largest = self.need(task, self._batch(task, examples[:1], size))
            if largest.total > LARGE_SHARE * self.free:
                return largest.told(self.free)
        return ""

    def batch_size(self, task: str, most: int) -> int:
        """The largest number of samples whose step fits, at most `most`; large ones are multiples
        of 8. Raises ConfigError if not even the fewest do."""
        most, examples = min(most, MOST_SAMPLES), self.examples(task)[:1]
        if self.free is None:
            return min(most, 32)
        room = AUTO_SHARE.get(self.device.type, GPU_SHARE) * self.free
        least = 1 + self.datasets[task].task.compares_samples

        def total(samples: int) -> int:
            return self.need(task, self._batch(task, examples, samples)).total

        few, more = least, min(least + 4, most)
        first, second = total(few), total(more)
        if first > room:
            found = self.need(task, self._batch(task, examples, least))
            raise ConfigError(f"batch_size: auto: {found.told(self.free)}")
        each = max(second - first, 1) / max(more - few, 1)
        size = _rounded(min(most, few + int((room - first) / each)), least)
        while size > least and total(size) > room:
            size = _rounded(int(size * 0.8), least)
        return size

    def samples_of(self, task: str, tokens: int) -> int:
        """How many of the longest samples have so many positions."""
        longest = sum(span.length for span in self.examples(task)[0].spans)
        return max(1 + self.datasets[task].task.compares_samples, tokens // max(longest, 1))

    def need(self, task: str, batch: Batch) -> Need:
        """The memory of a step with a batch."""
        from skillweave.training.planning.trace import trace_step  # imports much of PyTorch

        config = self.config
        trace: StepTrace = trace_step(
            self.model,
            batch,
            precision=config.precision,
            fused_attention=self.device.type == "cuda",
            chunk_size=self.chunk_sizes.get(task),
        )
        earlier = trace.gradients if config.gradient_accumulation_steps > 1 else 0
        parts = config.devices if config.parallel.divides_weights else config.parallel.replica_size
        state = config.optimizer.state_bytes * self.trained // parts
        there = 0 if self.device.type == "cpu" else trace.parameters
        inside = trace.peak - trace.gradients + trace.inputs
        held = state + there + earlier + trace.gradients + KERNELS
        return Need(task, trace.samples, round(MARGIN * held), round(MARGIN * max(inside, 0)))

    def examples(self, task: str) -> list[Example]:
        """Some samples of a task, the longest first. Where lengths are known they are the longest
        of all data and those in the middle."""
        if task not in self._examples:
            dataset = self.datasets[task]
            most = FEW_SIZES if dataset.streams else MANY_SIZES
            rows = _spread(len(dataset), most)
            sizes = dataset.sizes(rows)
            order = rows if sizes is None else rows[np.argsort(-sizes, kind="stable")]
            chosen = order[_spread(len(order), ROWS_READ)]
            rng, found = np.random.default_rng(0), []
            for row in dict.fromkeys(chosen.tolist()):
                try:
                    found.append(dataset.example(row, rng))
                except BadInput:
                    continue  # training lists it
            if not found:
                raise ConfigError(f"task {task!r}: no sample that was tried can be read")
            found.sort(key=lambda one: -sum(span.length for span in one.spans))
            self._examples[task] = found
        return self._examples[task]

    def _batch(self, task: str, examples: Sequence[Example], samples: int) -> Batch:
        chosen = [examples[i % len(examples)] for i in range(samples)]
        return self.datasets[task].collate(chosen, (), np.random.default_rng(0))

    def _may_matter(self, task: str, samples: int) -> bool:
        """Whether a generous estimate fills a good part of the memory, so that a trace, which takes
        seconds, is worth it."""
        assert self.free is not None
        config, layout = self.model.config, self.datasets[task].task.layout
        streams, positions, pixels = config.streams.present(), 0, 0
        for span in layout.spans:
            stream = streams.get(span.modality)
            positions += getattr(stream, "max_length", 512)
            pixels += int(np.prod(getattr(stream, "pixels", (1,))))
        encoders = [config.encoder, config.decoder, *(s.encoder for s in streams.values())]
        layers = sum(one.layers for one in encoders if one is not None)
        kept = positions * config.width * layers * VECTORS_PER_LAYER
        heads = getattr(config.encoder, "heads", 1)
        scores = 2 * layers * heads * positions**2
        vocabulary = (
            3 * positions * max((getattr(s, "vocabulary", 0) for s in streams.values()), default=0)
        )
        states = (2 * FLOAT + self.config.optimizer.state_bytes) * self.trained
        total = states + FLOAT * samples * (kept + scores + vocabulary + 40 * pixels)
        return total > 0.5 * self.free


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many of the first `count` numbers, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def _rounded(size: int, least: int) -> int:
    return max(least, size // 8 * 8 if size >= 16 else size)


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, also within the limit of a container. None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    fields = _read("/proc/meminfo").partition("MemAvailable:")[2].split()
    if device.type != "cpu" or not fields:
        return None
    free = 1024 * int(fields[0])
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(free, int(limit)) if limit.isdigit() else free


def _read(path: str) -> str:
    return Path(path).read_text() if os.path.exists(path) else ""

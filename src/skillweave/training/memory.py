"""An estimate of the memory that a step takes, before the first one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from skillweave.batch import Layout
from skillweave.config import ConfigError
from skillweave.config.streams import VisualStream
from skillweave.model.model import Model

FLOAT = 4
"""Bytes of a number."""

KEPT_PER_LAYER = 6
"""Vectors of its width that a layer keeps at least for each position until the backward pass: its
input, queries, keys, values, and what goes into the attention's and the feed-forward's output."""

LARGE_SHARE = 0.7
"""Share of the free memory from which on a warning is given."""


def check_memory(
    model: Model,
    batches: Mapping[str, tuple[Layout, int]],
    device: torch.device,
    state_bytes: int = 2 * FLOAT,
) -> str:
    """A warning if a step will fill most of the free memory; empty if not.

    `batches`: task → layout and number of samples of its batches on this process. `state_bytes`: of
    the optimizer, for each trained parameter. The estimate is a
    lower bound: gradients and optimizer state, and images and videos with what the layers keep of
    them. Texts and sound are not counted, since their lengths differ. Raises ConfigError if even
    that does not fit.
    """
    free = free_memory(device)
    if free is None:
        return ""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    states = (FLOAT + state_bytes) * trained
    for task, (layout, samples) in batches.items():
        parts = dict(_visual_bytes(model, layout, samples))
        needed = states + sum(parts.values())
        if needed <= LARGE_SHARE * free:
            continue
        largest = max(parts, key=parts.__getitem__, default="")
        line = (
            f"a step of task {task} takes at least {needed / 1e9:.1f} GB, and"
            f" {free / 1e9:.1f} GB are free ({states / 1e9:.1f} GB for gradients and optimizer,"
            f" {(needed - states) / 1e9:.1f} GB for {samples} samples); lower"
            f" tasks.{task}.batch_size{largest and f' or model.streams.{largest}.size'}"
        )
        if needed > free:
            raise ConfigError(line)
        return line
    return ""


def _visual_bytes(model: Model, layout: Layout, samples: int) -> Iterator[tuple[str, int]]:
    """Modality and bytes of the images and videos of a batch: before and after they are put
    together, and what the layers keep."""
    config = model.config
    for span in layout.spans:
        stream = config.streams.present().get(span.modality)
        if not isinstance(stream, VisualStream):
            continue
        pixels = math.prod(stream.pixels)
        encoder = stream.encoder or config.encoder
        vectors = sum(_kept_vectors(model, layer) for layer in range(encoder.layers))
        kept = stream.max_length * (stream.width or config.width) * vectors
        if any(name.startswith("visible") for name in stream.embedding):
            kept = 0  # masked patches are left out
        yield span.modality.value, samples * FLOAT * (2 * pixels + kept)


def _kept_vectors(model: Model, layer: int) -> int:
    """The vectors that a layer keeps for each position: its input alone if it computes the rest
    again."""
    recompute = model.encoder.recompute
    again = recompute is not None and not recompute.selective and recompute.applies(layer)
    return 1 if again else KEPT_PER_LAYER


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

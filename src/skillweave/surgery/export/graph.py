"""A tower as a graph of PyTorch operators, by torch.export."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skillweave.batch import Batch, Layout, Modality
from skillweave.layers.tokens import map_padded
from skillweave.model.model import Model

FIXED = frozenset({Modality.IMAGE, Modality.VIDEO})
"""Modalities of which every sample has the same size."""


class Graph(nn.Module):
    """A dense model of one pass as a function of tensors alone: no layout to decide, no length to
    read on the host."""

    def __init__(self, tower: Model, layout: Layout) -> None:
        super().__init__()
        self.tower = tower
        self.layout = layout

    def forward(self, inputs: list[Tensor], lengths: Tensor | None = None) -> Tensor:
        """[N, L, D] the hidden states. `inputs`: per span, as in `Batch`. `lengths`: [N, S] true
        positions; None for all."""
        parts = []
        for s, (span, x) in enumerate(zip(self.layout.spans, inputs, strict=True)):
            embedding = self.tower.embeddings[span.modality.value]
            own_N = None if lengths is None else lengths[:, s]
            starts_N = None if lengths is None else self.layout.starts(s, lengths)
            parts.append(
                embedding(x, own_N, self.layout.segment(s), self.tower.shared, starts_N=starts_N)
            )
        layout = self.layout.with_lengths(tuple(part.shape[1] for part in parts))
        tokens = map_padded(layout, parts[0].shape[0], lengths, parts[0].device)
        x_TD = torch.cat([part.flatten(0, 1) for part in parts])
        resolved = self.tower.encoder.resolve(tokens.conditions)
        hidden_TD, _ = self.tower.encoder(x_TD, tokens, [resolved[c] for c in tokens.conditions])
        return tokens.to_padded(hidden_TD)


def write_graph(tower: Model, batch: Batch, path: Path) -> None:
    """Export a tower. The number of samples is free, and so is the length of text, code and
    sound."""
    twice = Batch(
        batch.layout, tuple(torch.cat([x, x]) for x in batch.inputs), batch.lengths.repeat(2, 1)
    )
    example = _inputs(twice)  # a single sample would be taken for a constant
    lengths = None if example["lengths"] is None else {0: torch.export.Dim.AUTO}
    shapes = {
        "inputs": [_free_sizes(span.modality) for span in batch.layout.spans],
        "lengths": lengths,
    }
    noisy = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = noisy.level
    # it reports, at length, that it leaves an inequality between sizes as it stands
    noisy.setLevel(logging.ERROR)
    try:
        program = torch.export.export(
            Graph(tower, batch.layout).eval(), (), example, dynamic_shapes=shapes, strict=False
        )
    finally:
        noisy.setLevel(level)
    torch.export.save(program, path)


@torch.inference_mode()
def run_graph(path: Path, batch: Batch) -> Tensor:
    """[N, L, D] what an exported tower makes of a batch."""
    return torch.export.load(path).module()(**_inputs(batch))


def _inputs(batch: Batch) -> dict[str, Any]:
    """What the graph takes; pictures and clips are never padded."""
    padded = not FIXED.issuperset(batch.layout.modalities)
    return {"inputs": list(batch.inputs), "lengths": batch.lengths if padded else None}


def _free_sizes(modality: Modality) -> dict[int, Any]:
    auto = torch.export.Dim.AUTO
    return {0: auto} if modality in FIXED else {0: auto, 1: auto}

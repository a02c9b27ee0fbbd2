"""An encoder as a graph of PyTorch operators, by torch.export."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from skillweave.batch import Batch, Layout, Modality
from skillweave.components.embeddings import StreamEmbedding
from skillweave.components.targets.base import Encoded, Target
from skillweave.layers.tokens import map_padded
from skillweave.model.model import Model

FIXED = frozenset({Modality.IMAGE, Modality.VIDEO})
"""Modalities whose samples all have the same size."""


class Graph(nn.Module):
    """A dense model of one pass as a function of tensors: nothing depends on a layout or on numbers
    read on the host."""

    def __init__(self, model: Model, layout: Layout) -> None:
        super().__init__()
        self.model = model
        self.layout = layout

    def forward(self, inputs: list[Tensor], lengths: Tensor | None = None) -> Tensor:
        """[N, L, D] the hidden states. `inputs`: per span, as in `Batch`. `lengths`: [N, S] true
        positions; None for all."""
        return self.encode(inputs, lengths).padded()

    def encode(self, inputs: list[Tensor], lengths: Tensor | None) -> Encoded:
        """What targets read of the pass."""
        model, device = self.model, inputs[0].device
        embedded = {}
        for s, (span, x) in enumerate(zip(self.layout.spans, inputs, strict=True)):
            embedding = cast(StreamEmbedding, model.embeddings[span.modality.value])
            embedded[s] = embedding(x, embedding.place(self.layout, s, lengths), model.shared)
        samples = inputs[0].shape[0]
        layout = self.layout.with_lengths(tuple(x.shape[1] for x in embedded.values()))
        resolved = model.resolve_conditions(dict.fromkeys(layout.conditions))
        for path, own in model.projected_spans(layout, embedded).items():
            alone = replace(layout, spans=tuple(layout.spans[s] for s in own))
            given = None if lengths is None else lengths[:, list(own)]
            tokens = map_padded(alone, samples, given, device)
            tokens = replace(tokens, conditions=tuple(layout.condition(s) for s in own))
            model.project(path, own, embedded, tokens, resolved)
        tokens = map_padded(layout, samples, lengths, device)
        x_TD = torch.cat([x.flatten(0, 1) for x in embedded.values()])
        last = model.part_of(tokens.conditions[0])
        hidden_TD, _ = model.run_part(last, x_TD, tokens, resolved)
        return Encoded(hidden_TD, tokens)


class AnswerGraph(Graph):
    """As `Graph`, with the first target of the task. It gives the unit vectors [N, D] that a
    retrieval task compares, or the logits."""

    @property
    def target(self) -> Target:
        """The target."""
        task = self.model.config.tasks[self.layout.task]
        return cast(Target, self.model.targets[next(iter(task.targets))])

    @property
    def embeds(self) -> bool:
        """Whether it gives vectors."""
        return self.target.embeds

    def forward(self, inputs: list[Tensor], lengths: Tensor | None = None) -> Tensor:
        """[N, D] vectors, or logits: see the target."""
        encoded = self.encode(inputs, lengths)
        if self.embeds:
            return self.target.vector(encoded)
        embeddings = self.model.output_embeddings(self.layout.task)
        return self.target([encoded], {}, embeddings).logits


def write_graph(model: Model, batch: Batch, path: Path) -> None:
    """Export the hidden states of a model. The number of samples is free, and so is the length of
    text, code and sound."""
    torch.export.save(export_program(Graph(model, batch.layout).eval(), batch), path)


def export_program(graph: Graph, batch: Batch) -> torch.export.ExportedProgram:
    """A graph as a program whose number of samples, and length of text, code and sound, is free."""
    # at least two samples: a single one would be taken for a constant
    inputs = tuple(torch.cat([x, x]) for x in batch.inputs)
    example = graph_inputs(Batch(batch.layout, inputs, batch.lengths.repeat(2, 1)))
    shapes = {
        "inputs": [_free_sizes(span.modality) for span in batch.layout.spans],
        "lengths": None if example["lengths"] is None else {0: torch.export.Dim.AUTO},
    }
    noisy = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = noisy.level
    # it reports at length that it leaves an inequality between sizes unsolved
    noisy.setLevel(logging.ERROR)
    try:
        return torch.export.export(graph, (), example, dynamic_shapes=shapes, strict=False)
    finally:
        noisy.setLevel(level)


@torch.inference_mode()
def run_graph(path: Path, batch: Batch) -> Tensor:
    """[N, L, D] the hidden states of a batch by an exported model."""
    return torch.export.load(path).module()(**graph_inputs(batch))


def graph_inputs(batch: Batch) -> dict[str, Any]:
    """The inputs of the graph. Pictures and clips are never padded."""
    padded = not FIXED.issuperset(batch.layout.modalities)
    return {"inputs": list(batch.inputs), "lengths": batch.lengths if padded else None}


def _free_sizes(modality: Modality) -> dict[int, Any]:
    auto = torch.export.Dim.AUTO
    return {0: auto} if modality in FIXED else {0: auto, 1: auto}

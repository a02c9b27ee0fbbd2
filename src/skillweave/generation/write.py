"""What a model's decoder writes about the inputs of a batch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.generation.beam import beam_search
from skillweave.layers.attention import Memory
from skillweave.model.model import Model


def write(
    model: Model,
    batch: Batch,
    begin_NL: Tensor,
    end: int,
    most: int,
    beams: int = 1,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """The words of each sample's answer; the encoder runs once. What the batch holds of the answer
    itself is not looked at.

    `begin_NL`, `end`, `most`, `beams`, `length_penalty`: see `beam_search`.
    """
    resolved = model.resolve(batch.layout.task)
    memory = repeated(model.memory(batch, resolved), beams)
    layout = batch.layout.only(len(batch.layout.passes) - 1)

    def step(ids_NL: Tensor) -> Tensor:
        lengths = torch.full((len(ids_NL), 1), ids_NL.shape[1])
        so_far = Batch(layout.with_lengths((ids_NL.shape[1],)), (ids_NL,), lengths)
        return model.next_words(so_far, memory, resolved).float().log_softmax(-1)

    return beam_search(step, begin_NL, end, most, beams, length_penalty)


def repeated(memory: Memory, times: int) -> Memory:
    """Each sample's memory as often as it has beams."""
    tokens, hidden_NLD = memory.tokens, memory.tokens.to_padded(memory.hidden_TD)
    valid = None if tokens.valid is None else tokens.valid.repeat_interleave(times, 0)
    # A decoder looks at padded sequences alone: where the flat tokens stand no longer matters.
    apart = replace(tokens, samples=tokens.samples * times, index=None, valid=valid)
    return Memory(hidden_NLD.repeat_interleave(times, 0).flatten(0, 1), apart)

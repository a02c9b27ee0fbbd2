"""Text that a model's decoder generates from the inputs of a batch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.generation.beam import beam_search
from skillweave.layers.attention import Memory
from skillweave.model.model import Model


def generate(
    model: Model,
    batch: Batch,
    start_NL: Tensor,
    eos: int,
    max_new_tokens: int,
    beams: int = 1,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """The token ids of each sample's answer. The encoder runs once; the answers in the batch are
    not used.

    `start_NL`, `eos`, `max_new_tokens`, `beams`, `length_penalty`: see `beam_search`.
    """
    resolved = model.resolve(batch.layout.task)
    memory = repeat_memory(model.memory(batch, resolved), beams)
    layout = batch.layout.only(len(batch.layout.passes) - 1)

    def step(ids_NL: Tensor) -> Tensor:
        lengths = torch.full((len(ids_NL), 1), ids_NL.shape[1])
        so_far = Batch(layout.with_lengths((ids_NL.shape[1],)), (ids_NL,), lengths)
        return model.next_words(so_far, memory, resolved).float().log_softmax(-1)

    return beam_search(step, start_NL, eos, max_new_tokens, beams, length_penalty)


def repeat_memory(memory: Memory, times: int) -> Memory:
    """The memory of each sample, once per beam."""
    tokens = memory.tokens
    hidden_NLD = tokens.to_padded(memory.hidden_TD).repeat_interleave(times, 0)
    valid = None if tokens.valid is None else tokens.valid.repeat_interleave(times, 0)
    # A decoder reads padded sequences only, so the index of the flat tokens is not needed.
    repeated = replace(tokens, samples=tokens.samples * times, index=None, valid=valid)
    return Memory(hidden_NLD.flatten(0, 1), repeated)

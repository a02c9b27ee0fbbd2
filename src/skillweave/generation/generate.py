"""Text that a model writes after the inputs of a batch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.generation.beam import EarlyStopping, beam_search
from skillweave.model.model import Model


def generate(
    model: Model,
    batch: Batch,
    start_NL: Tensor,
    eos: int,
    max_new_tokens: int,
    beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
) -> list[list[int]]:
    """The token ids of each sample's answer. The inputs are encoded once, and so is each token; the
    answers in the batch are not used.

    `start_NL`: the tokens that answers begin with. The others: see `beam_search`.
    """
    state = model.prefill(answered(batch, start_NL))
    rows = torch.arange(len(start_NL), device=start_NL.device).repeat_interleave(beams)
    first_NV = state.logits.float().log_softmax(-1)
    state.reorder(rows)

    def step(tokens: Tensor, before: Tensor) -> Tensor:
        state.reorder(before)
        return model.step(tokens.unsqueeze(1), state).float().log_softmax(-1)

    return beam_search(first_NV, step, eos, max_new_tokens, beams, length_penalty, early_stopping)


def answered(batch: Batch, answers_NL: Tensor) -> Batch:
    """The batch with other tokens in its last span, all of the same length."""
    *lengths, _ = (span.length for span in batch.layout.spans)
    count = answers_NL.shape[1]
    own_N1 = torch.full((len(answers_NL), 1), count)
    return replace(
        batch,
        layout=batch.layout.with_lengths((*lengths, count)),
        inputs=(*batch.inputs[:-1], answers_NL),
        lengths=torch.cat([batch.lengths[:, :-1], own_N1], dim=1),
        masked=(*batch.masked[:-1], None) if batch.masked else (),
        labels={},
        logits_to_keep=None,
    )

"""Text that a model writes after the inputs of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.generation.beam import beam_search
from skillweave.generation.rules import build_rules
from skillweave.model.model import Model

NONE: Mapping[str, Any] = MappingProxyType({})


def generate(
    model: Model,
    batch: Batch,
    start_NL: Tensor,
    eos: int,
    max_new_tokens: int,
    beams: int = 1,
    length_penalty: float = 1.0,
    options: Mapping[str, Any] = NONE,
) -> list[list[int]]:
    """The token ids of each sample's answer. The inputs are encoded once, and so is each token; the
    answers in the batch are not used.

    `start_NL`: the tokens that answers begin with. `options`: of Transformers' generation, see
    `LanguageConfig.generation`. The others: see `beam_search`.
    """
    state = model.prefill(answered(batch, start_NL))
    rows = torch.arange(len(start_NL), device=start_NL.device).repeat_interleave(beams)
    adjust = build_rules(options, start_NL.shape[1], eos, max_new_tokens, str(start_NL.device))
    ids_NL = start_NL

    def scores(logits_NV: Tensor) -> Tensor:
        # as in Transformers, whose rules see logits where the search is greedy
        logits_NV = logits_NV.float()
        return adjust(ids_NL, logits_NV if beams == 1 else logits_NV.log_softmax(-1))

    first_NV = scores(state.logits)
    state.reorder(rows)
    ids_NL = ids_NL[rows]

    def step(tokens: Tensor, before: Tensor) -> Tensor:
        nonlocal ids_NL
        state.reorder(before)
        ids_NL = torch.cat([ids_NL[before], tokens.unsqueeze(1)], dim=1)
        return scores(model.step(tokens.unsqueeze(1), state))

    stop = options.get("early_stopping") or False
    return beam_search(first_NV, step, eos, max_new_tokens, beams, length_penalty, stop)


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

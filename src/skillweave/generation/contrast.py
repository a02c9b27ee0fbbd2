"""Contrastive search: a probable token whose output is unlike those before it (arXiv 2202.06417,
section 3.2).

Shape letters: N texts, K candidates, C tokens so far, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.layers.precision import at_least_float32
from skillweave.model.decoding import DecodingState

Read = Callable[[Tensor, int], Tensor]
"""The next tokens [M, L] of the texts of a state → logits [M, count, V] after the last of them."""


class Contrast:
    """Chooses the next token of each text among its `count` most probable ones: that with the
    highest (1 - `alpha`) p - `alpha` s. p is its probability, s the highest cosine of the model's
    output for it to the outputs for all tokens before, those of the prompt too.

    `read`: the candidates, to know their outputs; so the state counts the token that is chosen.
    """

    def __init__(self, read: Read, state: DecodingState, alpha: float, count: int) -> None:
        self.read, self.state, self.alpha, self.count = read, state, alpha, count
        self.seen_NCD = _directions(state.hidden)

    def __call__(self, scores_NV: Tensor) -> Tensor:
        """[N] the chosen tokens, none with a score of -∞ while another has a higher one."""
        state, count = self.state, min(self.count, scores_NV.shape[1])
        p_NK, tokens_NK = scores_NV.softmax(-1).topk(count)
        valid = state.valid
        rows_N = torch.arange(len(tokens_NK), device=tokens_NK.device)
        state.reorder(rows_N.repeat_interleave(count))
        self.read(tokens_NK.reshape(-1, 1), 1)
        new_NKD = _directions(state.hidden[:, -1]).unflatten(0, (-1, count))
        alike_NKC = new_NKD @ self.seen_NCD.mT
        if valid is not None:
            valid_N1C = valid[:, None, : alike_NKC.shape[2]]
            alike_NKC = alike_NKC.masked_fill(~valid_N1C, -torch.inf)
        value_NK = (1 - self.alpha) * p_NK - self.alpha * alike_NKC.amax(-1)
        forbidden_NK = scores_NV.gather(1, tokens_NK).isneginf()
        best_N = value_NK.masked_fill(forbidden_NK, -torch.inf).argmax(1)
        state.reorder(rows_N * count + best_N)
        chosen_N1D = new_NKD[rows_N, best_N].unsqueeze(1)
        self.seen_NCD = torch.cat([self.seen_NCD, chosen_N1D], dim=1)
        return tokens_NK[rows_N, best_N]


def _directions(hidden: Tensor) -> Tensor:
    """[..., D] of unit length."""
    return F.normalize(at_least_float32(hidden), dim=-1)

"""Beam search over tokens.

Shape letters: N samples, K beams, L tokens so far, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]
"""The next token [N·K] of each beam, and the beam [N·K] that it continues → log probabilities of
the token after it [N·K, V]. Beams of a sample are next to each other."""
EarlyStopping = bool | Literal["never"]


class Answer(NamedTuple):
    """The tokens of an answer, and its score: a log probability, see `beam_search`."""

    ids: list[int]
    score: float


def beam_search(
    first_NV: Tensor,
    step: Step,
    ends: Sequence[int],
    max_new_tokens: int,
    beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    best: int = 1,
) -> list[list[Answer]]:
    """The `best` most probable answers of each sample that the search finds, the first before the
    others; fewer where no others are possible. Where none is, the first has the score -∞.

    `first_NV`: log probabilities of the first token. `ends`: tokens that end an answer, of which
    they are no part. `max_new_tokens`: most tokens of an answer with its end. The score of an
    answer is the sum of its tokens' log probabilities divided by their number (with the end) to the
    power `length_penalty` (arXiv 1609.08144, section 7, without its constant).

    The search of a sample ends as in Transformers. `early_stopping` "never": when no unfinished
    answer can still win. False: when none would win if it ended now. True: when as many answers as
    beams have ended. With one beam, which is greedy search, at the first end.
    """
    (samples, vocabulary), device = first_NV.shape, first_NV.device
    row_N1 = torch.arange(samples, device=device).unsqueeze(1)
    ids_NKL = torch.zeros(samples, beams, 0, dtype=torch.long, device=device)
    done_NKL = torch.full((samples, beams, max_new_tokens), ends[0], device=device)
    end_ids = torch.tensor(ends, device=device)
    done_scores_NK = torch.full((samples, beams), -torch.inf, device=device)
    scores_NK = done_scores_NK.clone()
    scores_NK[:, 0] = 0  # the beams are still the same
    next_NKV = first_NV.unsqueeze(1).expand(-1, beams, -1)
    for length in range(1, max_new_tokens + 1):
        totals = (scores_NK.unsqueeze(2) + next_NKV.float()).flatten(1)
        # so many that K continue even if all others end
        found, chosen = totals.topk(min(max(2, 1 + len(ends)) * beams, totals.shape[1]))
        parents, tokens = chosen // vocabulary, chosen % vocabulary
        candidates = torch.cat([ids_NKL[row_N1, parents], tokens.unsqueeze(2)], dim=2)
        ended = torch.isin(tokens, end_ids) | (length == max_new_tokens)

        finished = ended & (torch.arange(found.shape[1], device=device) < beams)
        finished_scores = (found / length**length_penalty).where(finished, -torch.inf)
        padded = F.pad(candidates, (0, max_new_tokens - length), value=ends[0])
        done_scores_NK, kept = torch.cat([done_scores_NK, finished_scores], dim=1).topk(beams)
        done_NKL = torch.cat([done_NKL, padded], dim=1)[row_N1, kept]

        scores_NK, kept = found.masked_fill(ended, -torch.inf).topk(beams)
        ids_NKL = candidates[row_N1, kept]
        furthest = max_new_tokens if early_stopping == "never" else length
        reachable_N = scores_NK[:, 0] / furthest**length_penalty
        worst_N = done_scores_NK[:, -1]
        beaten_N = (worst_N >= reachable_N) | (early_stopping is True) | (beams == 1)
        settled_N = worst_N.isfinite() & beaten_N | scores_NK[:, 0].isneginf()
        if settled_N.all():
            break
        scores_NK = scores_NK.masked_fill(settled_N.unsqueeze(1), -torch.inf)
        before_NK = row_N1 * beams + parents[row_N1, kept]
        next_NKV = step(ids_NKL[..., -1].flatten(), before_NK.flatten()).unflatten(0, (-1, beams))
    return [
        [
            Answer(until_end(ids, ends), score)
            for rank, (ids, score) in enumerate(zip(*row, strict=True))
            if rank == 0 or score != -math.inf
        ]
        for row in zip(done_NKL[:, :best].tolist(), done_scores_NK[:, :best].tolist(), strict=True)
    ]


def until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the first end."""
    return list(takewhile(lambda token: token not in ends, ids))

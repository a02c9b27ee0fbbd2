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


class Search(NamedTuple):
    """How a search goes on and ends: see `beam_search`."""

    ends: Sequence[int]
    max_new_tokens: int
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False


class Beams:
    """The beams of samples, [N, K], and the answers that have ended."""

    def __init__(self, samples: int, beams: int, search: Search, device: torch.device) -> None:
        self.search, self.beams, self.length = search, beams, 0
        self.row_N1 = torch.arange(samples, device=device).unsqueeze(1)
        self.ids_NKL = torch.zeros(samples, beams, 0, dtype=torch.long, device=device)
        shape = samples, beams, search.max_new_tokens
        self.done_NKL = torch.full(shape, search.ends[0], device=device)
        self.end_ids = torch.tensor(search.ends, device=device)
        self.done_scores_NK = torch.full((samples, beams), -torch.inf, device=device)
        self.scores_NK = self.done_scores_NK.clone()
        self.scores_NK[:, 0] = 0  # the beams are still the same

    def advance(self, next_NKV: Tensor) -> Tensor:
        """Add a token to each beam by its log probabilities. Returns the beam [N, K] that each
        continues."""
        ends, most, penalty, early = self.search
        self.length += 1
        # so many that K continue even if all others end
        wanted = max(2, 1 + len(ends)) * self.beams
        best_NKW, tokens_NKW = next_NKV.float().topk(min(wanted, next_NKV.shape[2]))
        totals = (self.scores_NK.unsqueeze(2) + best_NKW).flatten(1)
        found, chosen = totals.topk(min(wanted, totals.shape[1]))
        parents, tokens = chosen // best_NKW.shape[2], tokens_NKW.flatten(1).gather(1, chosen)
        candidates = torch.cat([self.ids_NKL[self.row_N1, parents], tokens.unsqueeze(2)], dim=2)
        ended = torch.isin(tokens, self.end_ids)

        finished = (ended | (self.length == most)) & (
            torch.arange(found.shape[1], device=found.device) < self.beams
        )
        finished_scores = (found / self.length**penalty).where(finished, -torch.inf)
        padded = F.pad(candidates, (0, most - self.length), value=ends[0])
        known = torch.cat([self.done_scores_NK, finished_scores], dim=1)
        self.done_scores_NK, kept = known.topk(self.beams)
        self.done_NKL = torch.cat([self.done_NKL, padded], dim=1)[self.row_N1, kept]

        self.scores_NK, kept = found.masked_fill(ended, -torch.inf).topk(self.beams)
        self.ids_NKL = candidates[self.row_N1, kept]
        self.added_NK = self.scores_NK.isfinite()
        # a negative power makes longer answers worse
        furthest = most if early == "never" and penalty > 0 else self.length
        reachable_N = self.scores_NK[:, 0] / furthest**penalty
        worst_N = self.done_scores_NK[:, -1]
        beaten_N = (worst_N >= reachable_N) | (early is True) | (self.beams == 1)
        settled_N = worst_N.isfinite() & beaten_N
        over_N1 = (settled_N | (self.length == most)).unsqueeze(1)
        self.scores_NK = self.scores_NK.masked_fill(over_N1, -torch.inf)
        return parents[self.row_N1, kept]

    @property
    def settled(self) -> bool:
        """Whether nothing can be added to any beam."""
        return bool(self.scores_NK[:, 0].isneginf().all())

    def count(self, counts_NV: Tensor) -> Tensor:
        """[N, V] how many beams have each token last, added to other counts."""
        return counts_NV.scatter_add(1, self.ids_NKL[..., -1], self.added_NK.to(counts_NV.dtype))


def beam_search(
    first_NV: Tensor,
    step: Step,
    search: Search,
    beams: int = 1,
    best: int = 1,
    groups: int = 1,
    diversity_penalty: float = 0.0,
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

    `groups`: of as many beams each, which search one after the other at each token. The log
    probability of a token is lowered by `diversity_penalty` for each beam of the groups before that
    has it at this place (diverse beam search, arXiv 1610.02424, with the Hamming diversity).
    """
    (samples, vocabulary), device = first_NV.shape, first_NV.device
    every = [Beams(samples, beams // groups, search, device) for _ in range(groups)]
    begin_N11 = torch.arange(samples, device=device)[:, None, None] * beams
    next_NGKV = first_NV[:, None, None].expand(-1, groups, beams // groups, -1)
    for _ in range(search.max_new_tokens):
        before, counts_NV = [], first_NV.new_zeros(samples, vocabulary)
        for g, group in enumerate(every):
            own_NKV = next_NGKV[:, g]
            if g and diversity_penalty:
                own_NKV = own_NKV - diversity_penalty * counts_NV.unsqueeze(1)
            before.append(group.advance(own_NKV) + g * group.beams)
            if diversity_penalty:
                counts_NV = group.count(counts_NV)
        if all(group.settled for group in every):
            break
        tokens_NGK = torch.stack([group.ids_NKL[..., -1] for group in every], dim=1)
        before_NGK = begin_N11 + torch.stack(before, dim=1)
        scores = step(tokens_NGK.flatten(), before_NGK.flatten())
        next_NGKV = scores.unflatten(0, (samples, groups, -1))
    done_scores_NK, order = torch.cat([group.done_scores_NK for group in every], 1).topk(best)
    done_NKL = torch.cat([group.done_NKL for group in every], 1)[every[0].row_N1, order]
    return [
        [
            Answer(until_end(ids, search.ends), score)
            for rank, (ids, score) in enumerate(zip(*row, strict=True))
            if rank == 0 or score != -math.inf
        ]
        for row in zip(done_NKL.tolist(), done_scores_NK.tolist(), strict=True)
    ]


def until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the first end."""
    return list(takewhile(lambda token: token not in ends, ids))

"""Changes of the next token's scores: penalties, and what is cut off before a token is drawn.

Shape letters: N texts, L tokens so far (-1 for padding), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from skillweave.config.decoding import DecodingConfig

Change = Callable[[Tensor, Tensor], Tensor]
"""Tokens so far [N, L] and scores [N, V] → scores."""


class Rules(Protocol):
    """What a text may be: a constraint, or the timestamps of Whisper."""

    def __call__(self, ids_NL: Tensor, scores_NV: Tensor, first: int, last: int) -> Tensor:
        """As `Change`. `first`: L before the first token of the text, `last`: before the last."""
        ...


Cut = Callable[[Tensor], Tensor]
"""Scores [N, V] → scores."""


def penalties(
    settings: DecodingConfig,
    ends: Sequence[int],
    given: int,
    most: int,
    constraint: Rules | None = None,
) -> list[Change]:
    """The changes that every search applies, in the order of Transformers, and the constraint.
    `ends`: tokens that end a text. `given`: L before the first token is written, `most`: after the
    last one."""
    changes: list[Change] = []
    first = given + (given == 1 and settings.forced_bos_token_id is not None)
    if settings.repetition_penalty != 1:
        changes.append(partial(repeated, penalty=settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        changes.append(partial(ngrams, size=settings.no_repeat_ngram_size))
    if settings.bad_words_ids:
        changes.append(partial(banned, words=settings.bad_words_ids))
    if least := max(
        settings.min_length, settings.min_new_tokens and given + settings.min_new_tokens
    ):
        changes.append(partial(without, tokens=ends, lengths=range(least)))
    if settings.forced_bos_token_id is not None:
        changes.append(partial(forced, tokens=[settings.forced_bos_token_id], length=1))
    if settings.forced_eos_token_id is not None:
        last = settings.forced_eos_token_id
        last = [last] if isinstance(last, int) else last
        changes.append(partial(forced, tokens=last, length=most - 1))
    if settings.suppress_tokens:
        every = range(most)
        changes.append(partial(without, tokens=settings.suppress_tokens, lengths=every))
    if settings.begin_suppress_tokens:
        begin = range(first, first + 1)
        changes.append(partial(without, tokens=settings.begin_suppress_tokens, lengths=begin))
    if settings.renormalize_logits:
        changes.append(lambda ids, scores: scores.log_softmax(-1))
    if constraint is not None:
        changes.append(partial(constraint, first=first, last=most - 1))
    return changes


def cuts(settings: DecodingConfig) -> list[Cut]:
    """The changes before a token is drawn."""
    changes: list[Cut] = []
    if settings.temperature != 1:
        changes.append(partial(torch.div, other=settings.temperature))
    if settings.top_k:
        changes.append(partial(highest, count=settings.top_k))
    if settings.top_p is not None and settings.top_p < 1:
        changes.append(partial(nucleus, mass=settings.top_p))
    if settings.min_p is not None:
        changes.append(partial(probable, share=settings.min_p))
    if settings.typical_p is not None and settings.typical_p < 1:
        changes.append(partial(typical, mass=settings.typical_p))
    return changes


def repeated(ids_NL: Tensor, scores_NV: Tensor, penalty: float) -> Tensor:
    """Lower scores of tokens that stand in the text."""
    seen_NV = _marks(ids_NL, scores_NV)
    lower = torch.where(scores_NV < 0, scores_NV * penalty, scores_NV / penalty)
    return torch.where(seen_NV, lower, scores_NV)


def ngrams(ids_NL: Tensor, scores_NV: Tensor, size: int) -> Tensor:
    """-∞ for tokens that would end a sequence of `size` tokens that the text has already."""
    if ids_NL.shape[1] < size:
        return scores_NV
    windows_NWS = ids_NL.unfold(1, size, 1)
    last = ids_NL[:, ids_NL.shape[1] - size + 1 :].unsqueeze(1)
    again_NW = (windows_NWS[..., :-1] == last).all(-1)
    return scores_NV.masked_fill(
        _marks(windows_NWS[..., -1].where(again_NW, -1), scores_NV), -torch.inf
    )


def banned(ids_NL: Tensor, scores_NV: Tensor, words: Sequence[Sequence[int]]) -> Tensor:
    """-∞ for tokens that would end one of the words."""
    scores_NV = scores_NV.clone()
    for *before, last in words:
        ending = ids_NL[:, ids_NL.shape[1] - len(before) :]
        if ending.shape[1] == len(before):
            begun_N = (ending == ending.new_tensor(before)).all(1)
            scores_NV[begun_N, last] = -torch.inf
    return scores_NV


def without(ids_NL: Tensor, scores_NV: Tensor, tokens: Sequence[int], lengths: range) -> Tensor:
    """-∞ for some tokens after texts of these lengths."""
    if ids_NL.shape[1] not in lengths:
        return scores_NV
    scores_NV = scores_NV.clone()
    scores_NV[:, list(tokens)] = -torch.inf
    return scores_NV


def forced(ids_NL: Tensor, scores_NV: Tensor, tokens: Sequence[int], length: int) -> Tensor:
    """-∞ for all but some tokens after texts of this length."""
    if ids_NL.shape[1] != length:
        return scores_NV
    scores_NV = torch.full_like(scores_NV, -torch.inf)
    scores_NV[:, list(tokens)] = 0
    return scores_NV


def highest(scores_NV: Tensor, count: int) -> Tensor:
    """-∞ for all but so many scores; equal scores stay together."""
    least = scores_NV.topk(min(count, scores_NV.shape[1])).values[:, -1:]
    return scores_NV.masked_fill(scores_NV < least, -torch.inf)


def nucleus(scores_NV: Tensor, mass: float) -> Tensor:
    """-∞ for the least probable tokens that together have at most 1 - `mass`."""
    ordered, order = scores_NV.sort(dim=1)
    cut = ordered.softmax(1).cumsum(1) <= 1 - mass
    cut[:, -1] = False
    return scores_NV.masked_fill(cut.scatter(1, order, cut), -torch.inf)


def probable(scores_NV: Tensor, share: float) -> Tensor:
    """-∞ for tokens with less than `share` of the highest probability."""
    probabilities = scores_NV.softmax(1)
    return scores_NV.masked_fill(
        probabilities < share * probabilities.amax(1, keepdim=True), -torch.inf
    )


def typical(scores_NV: Tensor, mass: float) -> Tensor:
    """-∞ for tokens whose information is farther from the entropy than those that together have
    `mass`."""
    log_p = scores_NV.log_softmax(1)
    entropy_N1 = -(log_p.exp() * log_p).nansum(1, keepdim=True)
    far_NV = (-log_p - entropy_N1).abs()
    ordered, order = far_NV.sort(dim=1)
    below_NV = scores_NV.gather(1, order).softmax(1).cumsum(1) < mass
    last_N1 = below_NV.sum(1, keepdim=True).clamp(max=scores_NV.shape[1] - 1)
    cut = ordered > ordered.gather(1, last_N1)
    cut[:, 0] = False
    return scores_NV.masked_fill(cut.scatter(1, order, cut), -torch.inf)


def _marks(ids_NL: Tensor, scores_NV: Tensor) -> Tensor:
    """[N, V] whether a token is among those of its row; -1 stands for none."""
    marks = torch.zeros(len(ids_NL), scores_NV.shape[1] + 1, dtype=torch.bool, device=ids_NL.device)
    return marks.scatter(1, ids_NL.where(ids_NL >= 0, scores_NV.shape[1]), True)[:, :-1]

"""Changes of the next token's scores: penalties, and what is cut off before a token is drawn.

Shape letters: N texts, L tokens so far (-1 for padding), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from skillweave.batch import Batch, Modality
from skillweave.config import ConfigError
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
MOST_INFORMATIVE = 100
"""Tokens that `top_h` draws among at most, as in Transformers."""


def penalties(
    settings: DecodingConfig,
    batch: Batch,
    ends: Sequence[int],
    most: int,
    constraint: Rules | None = None,
) -> list[Change]:
    """The changes that every search applies, in the order of Transformers, and the constraint.
    `batch`: what is continued. `ends`: tokens that end a text. `most`: L after the last one is
    written. Raises ConfigError for penalties of an input's tokens that has none."""
    changes: list[Change] = []
    given = batch.inputs[-1].shape[1]
    if settings.sequence_bias:
        changes.append(partial(biased, biases=settings.sequence_bias))
    if (penalty := settings.encoder_repetition_penalty) != 1:
        changes.append(partial(copied, source_NL=input_tokens(batch), penalty=penalty))
    first = given + (given == 1 and settings.forced_bos_token_id is not None)
    if settings.repetition_penalty != 1:
        changes.append(partial(repeated, penalty=settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        changes.append(partial(ngrams, size=settings.no_repeat_ngram_size))
    if size := settings.encoder_no_repeat_ngram_size:
        changes.append(partial(source_ngrams, source_NL=input_tokens(batch), size=size))
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
    if settings.exponential_decay_length_penalty is not None:
        start, factor = settings.exponential_decay_length_penalty
        begin = given + start
        changes.append(partial(lengthened, tokens=ends, begin=begin, factor=factor))
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
    if settings.top_h is not None:
        changes.append(partial(informative, share=settings.top_h))
    if settings.top_k:
        changes.append(partial(highest, count=settings.top_k))
    if settings.top_p is not None and settings.top_p < 1:
        changes.append(partial(nucleus, mass=settings.top_p))
    if settings.min_p is not None:
        changes.append(partial(probable, share=settings.min_p))
    if settings.typical_p is not None and settings.typical_p < 1:
        changes.append(partial(typical, mass=settings.typical_p))
    if settings.epsilon_cutoff is not None:
        changes.append(partial(above, least=settings.epsilon_cutoff))
    if settings.eta_cutoff is not None:
        changes.append(partial(entropic, least=settings.eta_cutoff))
    return changes


def own_tokens(batch: Batch, span: int) -> Tensor:
    """[N, L] the tokens of a span, with padding before them, so that what is written follows
    them; -1 for padding."""
    given_NL = batch.inputs[span]
    lengths_N1 = batch.lengths[:, span, None].to(given_NL.device)
    place_NL = torch.arange(-given_NL.shape[1], 0, device=given_NL.device) + lengths_N1
    return given_NL.gather(1, place_NL.clamp(min=0)).where(place_NL >= 0, -1)


def input_tokens(batch: Batch) -> Tensor:
    """[N, L] those of the input text, which for a language model is the text that it continues.
    Raises ConfigError for other inputs."""
    if batch.layout.spans[0].modality not in (Modality.TEXT, Modality.CODE):
        raise ConfigError(
            "encoder_repetition_penalty and encoder_no_repeat_ngram_size look at the tokens of an"
            f" input text, and the input is {batch.layout.spans[0].modality.value}; leave them out"
        )
    return own_tokens(batch, 0)


def biased(
    ids_NL: Tensor, scores_NV: Tensor, biases: Sequence[tuple[Sequence[int], float]]
) -> Tensor:
    """Add a bias to tokens that would end a sequence."""
    scores_NV = scores_NV.clone()
    for (*before, last), bias in biases:
        scores_NV[_ends_with(ids_NL, before), last] += bias
    return scores_NV


def copied(ids_NL: Tensor, scores_NV: Tensor, source_NL: Tensor, penalty: float) -> Tensor:
    """Raise scores of tokens that stand in the input."""
    own_NL = source_NL.repeat_interleave(len(ids_NL) // len(source_NL), dim=0)
    return repeated(own_NL, scores_NV, 1 / penalty)


def source_ngrams(ids_NL: Tensor, scores_NV: Tensor, source_NL: Tensor, size: int) -> Tensor:
    """-∞ for tokens that would end a sequence of `size` tokens that the input has."""
    own_NL = source_NL.repeat_interleave(len(ids_NL) // len(source_NL), dim=0)
    return _without_ngrams(ids_NL, own_NL, scores_NV, size)


def lengthened(
    ids_NL: Tensor, scores_NV: Tensor, tokens: Sequence[int], begin: int, factor: float
) -> Tensor:
    """Raise the scores of some tokens by a power of `factor`, in texts longer than `begin`."""
    beyond = ids_NL.shape[1] - begin
    if beyond <= 0:
        return scores_NV
    scores_NV = scores_NV.clone()
    own = scores_NV[:, list(tokens)]
    size = own.abs().where(own.isfinite(), 0)  # what is excluded stays excluded
    scores_NV[:, list(tokens)] = own + size * (factor**beyond - 1)
    return scores_NV


def repeated(ids_NL: Tensor, scores_NV: Tensor, penalty: float) -> Tensor:
    """Lower scores of tokens that stand in the text."""
    seen_NV = _marks(ids_NL, scores_NV)
    lower = torch.where(scores_NV < 0, scores_NV * penalty, scores_NV / penalty)
    return torch.where(seen_NV, lower, scores_NV)


def ngrams(ids_NL: Tensor, scores_NV: Tensor, size: int) -> Tensor:
    """-∞ for tokens that would end a sequence of `size` tokens that the text has already."""
    return _without_ngrams(ids_NL, ids_NL, scores_NV, size)


def _without_ngrams(ids_NL: Tensor, source_NL: Tensor, scores_NV: Tensor, size: int) -> Tensor:
    """-∞ for tokens that would end a sequence of `size` tokens of a source."""
    if source_NL.shape[1] < size or ids_NL.shape[1] < size - 1:
        return scores_NV
    windows_NWS = source_NL.unfold(1, size, 1)
    last = ids_NL[:, ids_NL.shape[1] - size + 1 :].unsqueeze(1)
    again_NW = (windows_NWS[..., :-1] == last).all(-1)
    return scores_NV.masked_fill(
        _marks(windows_NWS[..., -1].where(again_NW, -1), scores_NV), -torch.inf
    )


def banned(ids_NL: Tensor, scores_NV: Tensor, words: Sequence[Sequence[int]]) -> Tensor:
    """-∞ for tokens that would end one of the words."""
    scores_NV = scores_NV.clone()
    for *before, last in words:
        scores_NV[_ends_with(ids_NL, before), last] = -torch.inf
    return scores_NV


def _ends_with(ids_NL: Tensor, tokens: Sequence[int]) -> Tensor:
    """[N] whether a text ends with some tokens."""
    if len(tokens) > ids_NL.shape[1]:
        return torch.zeros(len(ids_NL), dtype=torch.bool, device=ids_NL.device)
    ending = ids_NL[:, ids_NL.shape[1] - len(tokens) :]
    return (ending == ending.new_tensor(tokens)).all(1)


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


def informative(scores_NV: Tensor, share: float) -> Tensor:
    """-∞ for all but the most probable tokens that together have at most `share` of the entropy of
    the `MOST_INFORMATIVE` most probable ones, and for all but the first of these."""
    found_NK, kept_NK = scores_NV.topk(min(MOST_INFORMATIVE, scores_NV.shape[1]))
    p_NK = found_NK.softmax(1)
    parts_NK = torch.special.entr(p_NK)
    cut_NK = parts_NK.cumsum(1) > share * parts_NK.sum(1, keepdim=True)
    cut_NK[:, 0] = False
    left_NV = torch.full_like(scores_NV, -torch.inf)
    return left_NV.scatter(1, kept_NK, found_NK.masked_fill(cut_NK, -torch.inf))


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


def above(scores_NV: Tensor, least: float | Tensor) -> Tensor:
    """-∞ for tokens with a lower probability, but for the most probable one."""
    probabilities = scores_NV.softmax(1)
    cut = probabilities < least
    return scores_NV.masked_fill(cut & (scores_NV < scores_NV.amax(1, keepdim=True)), -torch.inf)


def entropic(scores_NV: Tensor, least: float) -> Tensor:
    """-∞ for tokens whose probability is below `least`, and below √`least` · exp(-entropy)."""
    log_p = scores_NV.log_softmax(1)
    entropy_N1 = -(log_p.exp() * log_p).nansum(1, keepdim=True)
    return above(scores_NV, (least**0.5 * (-entropy_N1).exp()).clamp(max=least))


def _marks(ids_NL: Tensor, scores_NV: Tensor) -> Tensor:
    """[N, V] whether a token is among those of its row; -1 stands for none."""
    marks = torch.zeros(len(ids_NL), scores_NV.shape[1] + 1, dtype=torch.bool, device=ids_NL.device)
    return marks.scatter(1, ids_NL.where(ids_NL >= 0, scores_NV.shape[1]), True)[:, :-1]

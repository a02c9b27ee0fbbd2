"""Text that a model writes after the inputs of a batch.

Shape letters: N samples, K beams, M = N · K texts, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config.decoding import DecodingConfig
from skillweave.generation.beam import Answer, Search, beam_search
from skillweave.generation.contrast import Contrast
from skillweave.generation.drafts import Assistant, AssistantDraft, Draft, LookUp
from skillweave.generation.scores import Change, Rules, cuts, own_tokens, penalties
from skillweave.model.decoding import DecodingState
from skillweave.model.model import Model

Stops = Callable[[list[int]], bool]
"""Whether a text of these tokens ends here."""


class Next(NamedTuple):
    """The next token of each text [M], its log probability, and whether the text goes on after
    it."""

    tokens: list[int]
    scores: list[float]
    goes_on: list[bool]


class Texts:
    """Texts that grow by a token at a time. `most`: the longest, with the tokens that it
    continues. `fixed`: whether the state has room for all of them from the beginning; a GPU then
    reads each token by a compiled step."""

    def __init__(
        self,
        model: Model,
        batch: Batch,
        copies: int,
        changes: Sequence[Change],
        most: int,
        fixed: bool = False,
    ) -> None:
        self.changes, self.most, self.steps = changes, most, model.steps
        self.state: DecodingState = model.prefill(batch)
        self.draft: Draft | None = None
        """Guesses how a single text goes on."""
        self.guessed: list[tuple[int, Tensor]] = []
        """Tokens that the state counts already, and the logits [1, V] after each."""
        self.chosen_by_reading = False
        """Whether the state counts the next token as soon as it is chosen."""
        self.ids = own_tokens(batch, len(batch.inputs) - 1)
        if copies > 1:
            rows = torch.arange(len(self.ids), device=self.ids.device).repeat_interleave(copies)
            self.state.reorder(rows)
            self.ids = self.ids[rows]
        if fixed:
            self.state = self.state.fixed(most - self.ids.shape[1])
            if self.ids.is_cuda:
                self.steps = torch.compile(model.steps, dynamic=False)

    def select(self, rows: Tensor) -> None:
        """The text [M] that each next one continues, of the same sample."""
        self.state.reorder_beams(rows)
        self.ids = self.ids[rows]

    def add(self, tokens: Tensor) -> None:
        """The next token [M] of each."""
        self.ids = torch.cat([self.ids, tokens.unsqueeze(1)], dim=1)
        if self.chosen_by_reading:
            return
        if self.guessed and self.guessed[0][0] == tokens.item():
            _, self.state.logits = self.guessed.pop(0)
            return
        self.state.drop(len(self.guessed))
        room = self.most - self.ids.shape[1] - 1  # nothing is read after the last token
        guessed = self.draft.guess(self.ids, room) if self.draft and room > 0 else []
        read_NL = torch.cat([tokens.unsqueeze(1), tokens.new_tensor([guessed] * len(tokens))], 1)
        first, *others = self.read(read_NL, 1 + len(guessed)).unbind(1)
        self.state.logits = first
        self.guessed = list(zip(guessed, others, strict=True))

    def read(self, tokens_ML: Tensor, count: int) -> Tensor:
        """Logits [M, count, V] after the last of the next tokens."""
        return self.steps(tokens_ML, self.state, count)

    def logits(self) -> Tensor:
        """[M, V] of the next token, with penalties."""
        return self.changed(self.state.logits.float())

    def log_probabilities(self) -> Tensor:
        """[M, V] of the next token, with penalties, which a search applies to logarithms."""
        return self.changed(self.state.logits.float().log_softmax(-1))

    def changed(self, scores: Tensor) -> Tensor:
        """The scores after all changes."""
        for change in self.changes:
            scores = change(self.ids, scores)
        return scores


@torch.no_grad()
def generate(
    model: Model,
    batch: Batch,
    ends: Sequence[int],
    max_new_tokens: int,
    settings: DecodingConfig | None = None,
    stops: Stops | None = None,
    constraint: Rules | None = None,
    assistant: Assistant | None = None,
) -> list[list[Answer]]:
    """The answers for each sample of a batch, which end after the tokens of its last span. Inputs
    and tokens are encoded once.

    `ends`: tokens that end an answer, of which they are no part. `max_new_tokens`: most tokens of
    an answer with its end. `constraint`: what an answer may be. `assistant`: of a single text. The
    score of an answer is that of `beam_search`, or the sum of its tokens' log probabilities.
    """
    settings = settings or DecodingConfig()
    if settings.num_beams > 1:
        return _searched(model, batch, ends, max_new_tokens, settings, constraint)
    how = settings, stops, constraint, assistant
    written = list(write(model, batch, ends, max_new_tokens, *how))
    texts = [Answer([], 0.0) for _ in written[0].tokens]
    going = [True] * len(texts)
    for one in written:
        for i, (token, score) in enumerate(zip(one.tokens, one.scores, strict=True)):
            if going[i]:
                ids = texts[i].ids if token in ends else [*texts[i].ids, token]
                texts[i] = Answer(ids, texts[i].score + score)
        going = [a and b for a, b in zip(going, one.goes_on, strict=True)]
    count = settings.num_return_sequences
    return [texts[i : i + count] for i in range(0, len(texts), count)]


def _searched(
    model: Model,
    batch: Batch,
    ends: Sequence[int],
    max_new_tokens: int,
    settings: DecodingConfig,
    constraint: Rules | None,
) -> list[list[Answer]]:
    """As `generate`, by beam search."""
    beams, most = settings.num_beams, batch.inputs[-1].shape[1] + max_new_tokens
    changes = penalties(settings, batch, ends, most, constraint)
    texts = Texts(model, batch, beams, changes, most, settings.fixed)

    def step(tokens: Tensor, before: Tensor) -> Tensor:
        texts.select(before)
        texts.add(tokens)
        return texts.log_probabilities()

    return beam_search(
        texts.log_probabilities()[::beams],
        step,
        Search(ends, max_new_tokens, settings.length_penalty, settings.early_stopping),
        beams,
        settings.num_return_sequences,
        settings.num_beam_groups,
        settings.diversity_penalty,
    )


@torch.no_grad()
def write(
    model: Model,
    batch: Batch,
    ends: Sequence[int],
    max_new_tokens: int,
    settings: DecodingConfig | None = None,
    stops: Stops | None = None,
    constraint: Rules | None = None,
    assistant: Assistant | None = None,
) -> Iterator[Next]:
    """The next token of each text as it is found: the most probable one, a drawn one, or that of
    contrastive search. Each sample has `num_return_sequences` texts, next to each other. The
    others: see `generate`."""
    settings = settings or DecodingConfig()
    given = batch.inputs[-1].shape[1]
    most = given + max_new_tokens
    changes = penalties(settings, batch, ends, most, constraint)
    texts = Texts(model, batch, settings.num_return_sequences, changes, most, settings.fixed)
    if len(texts.ids) == 1 and texts.state.droppable:
        if assistant is not None:
            texts.draft = AssistantDraft(assistant, ends, changes, settings)
        elif settings.prompt_lookup_num_tokens:
            texts.draft = LookUp(settings.prompt_lookup_num_tokens)
    choose = _chooser(texts, settings)
    goes_on = [True] * len(texts.ids)
    for length in range(1, max_new_tokens + 1):
        scores = texts.logits()
        if changes and (lost := scores.amax(1).isneginf()).any():
            scores[lost, ends[0]] = 0  # a text that no token may continue ends
        log_p = scores.log_softmax(-1)
        tokens = choose(scores)
        chosen = log_p.gather(1, tokens.unsqueeze(1)).squeeze(1)
        found = tokens.tolist()
        goes_on = [
            going and token not in ends and length < max_new_tokens
            for going, token in zip(goes_on, found, strict=True)
        ]
        if stops:
            before = texts.ids[:, given:].tolist()
            for i, (ids, token) in enumerate(zip(before, found, strict=True)):
                goes_on[i] = goes_on[i] and not stops([*ids, token])
        yield Next(found, chosen.tolist(), goes_on)
        if not any(goes_on):
            return
        texts.add(tokens)


def _chooser(texts: Texts, settings: DecodingConfig) -> Callable[[Tensor], Tensor]:
    """What takes a token [M] for each text by its scores [M, V]."""
    if settings.penalty_alpha:
        texts.chosen_by_reading = True
        return Contrast(texts.read, texts.state, settings.penalty_alpha, settings.top_k)
    if not settings.do_sample:
        return partial(torch.argmax, dim=-1)
    generator, removed = torch.Generator(texts.ids.device), cuts(settings)
    generator.seed() if settings.seed is None else generator.manual_seed(settings.seed)

    def drawn(scores: Tensor) -> Tensor:
        for cut in removed:
            scores = cut(scores)
        uniform = torch.rand(len(scores), generator=generator, device=scores.device)
        return draw(scores.softmax(-1), uniform)

    return drawn


def draw(probabilities_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """[N] the token at which the sum of the probabilities exceeds a number drawn from [0, 1)."""
    sums_NV = probabilities_NV.double().cumsum(1)
    wanted_N1 = (uniform_N.double() * sums_NV[:, -1]).unsqueeze(1)
    return torch.searchsorted(sums_NV, wanted_N1, right=True).squeeze(1)


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

"""How likely a model is to write each of several texts after the same beginning.

Shape letters: N samples, M candidates, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skillweave.batch import Batch
from skillweave.components.encoders.base import Resolved
from skillweave.config import ConfigError
from skillweave.layers.precision import at_least_float32
from skillweave.model.decoding import DecodingState
from skillweave.model.model import Model

MEMORY = 2**28
"""Bytes that the candidates scored at once may take, with their logits."""

Candidates = Sequence[Sequence[int]]
"""The token ids of each candidate of a sample, of unequal lengths."""


@torch.no_grad()
def score_candidates(
    model: Model,
    batch: Batch,
    candidates: Sequence[Candidates],
    resolved: Resolved | None = None,
    memory: int = MEMORY,
) -> list[list[Tensor]]:
    """The log probability of each token of each candidate, by sample and candidate, each [L] on the
    host.

    The model reads the inputs and the beginning of the text once (`Model.prefill`). All candidates
    then follow in one batch over that state, or in several where one would take more than `memory`
    bytes.

    `batch`: its last span is a causal text, the beginning that all candidates of a sample continue.
    `candidates`: for each sample, at least one; each of at least one token. `resolved`: as for
    `Model.forward`. Raises ConfigError for a sample or candidate without any, and for a task that
    writes no text.
    """
    _require_candidates(candidates, len(batch))
    state = model.prefill(batch, resolved)
    first_NV = at_least_float32(state.logits).log_softmax(-1)
    numbered = [(n, k) for n, one in enumerate(candidates) for k in range(len(one))]
    # texts of like length stand together, so that little is padding
    numbered.sort(key=lambda place: -len(candidates[place[0]][place[1]]))
    found: list[list[Tensor]] = [[torch.empty(0)] * len(one) for one in candidates]
    for places in _chunks(numbered, candidates, state, memory):
        rows = torch.tensor([n for n, _ in places], device=first_NV.device)
        texts = [candidates[n][k] for n, k in places]
        scores = _token_scores(model, state, rows, texts, first_NV)
        for (n, k), text, score_L in zip(places, texts, scores.cpu(), strict=True):
            found[n][k] = score_L[: len(text)].clone()
    return found


def _token_scores(
    model: Model, state: DecodingState, rows: Tensor, texts: Candidates, first_NV: Tensor
) -> Tensor:
    """[M, L] the log probability of each token; arbitrary after the end of a text. `rows`: [M] the
    sample that each continues. `first_NV`: log probabilities of first tokens."""
    ids = [torch.tensor(text, device=rows.device) for text in texts]
    ids_ML = pad_sequence(ids, batch_first=True)
    scores = [first_NV[rows].gather(1, ids_ML[:, :1])]
    if (read := ids_ML.shape[1] - 1) > 0:
        # padding follows a text, so no token of the text attends to it
        logits_MLV = model.steps(ids_ML[:, :-1], state.copied(rows), read)
        log_p_MLV = at_least_float32(logits_MLV).log_softmax(-1)
        scores.append(log_p_MLV.gather(2, ids_ML[:, 1:, None]).squeeze(2))
    return torch.cat(scores, dim=1)


def _chunks(
    places: Sequence[tuple[int, int]],
    candidates: Sequence[Candidates],
    state: DecodingState,
    memory: int,
) -> Iterator[Sequence[tuple[int, int]]]:
    """The places in groups of at most `memory` bytes, the longest texts first."""
    begin = 0
    while begin < len(places):
        n, k = places[begin]
        length = len(candidates[n][k])
        # logits and their logarithms, twice
        vocabulary = 3 * state.logits.shape[1] * state.logits.element_size()
        count = max(1, memory // (state.bytes_per_sample(length) + length * vocabulary))
        yield places[begin : begin + count]
        begin += count


def shared_beginning(texts: Candidates, most: int) -> int:
    """How many tokens all texts have in common at their beginning, at most `most`."""
    columns = zip(*(text[:most] for text in texts), strict=False)
    for length, tokens in enumerate(columns):
        if len(set(tokens)) > 1:
            return length
    return min(most, *(len(text) for text in texts))


def _require_candidates(candidates: Sequence[Candidates], samples: int) -> None:
    if len(candidates) != samples:
        raise ConfigError(f"candidates for {len(candidates)} samples, and the batch has {samples}")
    for n, one in enumerate(candidates):
        if not one:
            raise ConfigError(f"sample {n} has no candidates; give at least one text to score")
        if empty := [k for k, text in enumerate(one) if not len(text)]:
            raise ConfigError(
                f"sample {n}: candidate {empty[0]} has no tokens; leave it out, or write it with"
                " words that the tokenizer knows"
            )

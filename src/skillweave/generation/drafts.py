"""What may follow a text, guessed: the model then reads several tokens in one pass, and keeps those
that it would have written itself (assisted decoding; arXiv 2211.17192).

The model draws each token by its own scores, so the text has the same distribution as without
guesses, and the same tokens for the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.config.decoding import DecodingConfig
from skillweave.generation.scores import Change
from skillweave.model.model import Model


class Draft(Protocol):
    """Guesses how a text goes on."""

    def guess(self, ids_1L: Tensor, most: int) -> list[int]:
        """At most so many tokens after those of a text."""
        ...


class Assistant(NamedTuple):
    """A smaller model with the same tokens, and the input for it, which ends with the same tokens
    as that of the model."""

    model: Model
    batch: Batch


class LookUp:
    """The tokens that followed the same words earlier in the text (prompt look-up). `count`: of
    tokens."""

    def __init__(self, count: int) -> None:
        self.count = count

    def guess(self, ids_1L: Tensor, most: int) -> list[int]:
        """See `Draft`."""
        return looked_up(ids_1L[0].tolist(), min(self.count, most))


class AssistantDraft:
    """What an assistant would write: its most probable tokens, up to the first that it is not sure
    of, or an end. `changes`: of its scores, as of those of the model.

    Raises ConfigError for recurrent layers, which cannot take back a token.
    """

    def __init__(
        self,
        assistant: Assistant,
        ends: Sequence[int],
        changes: Sequence[Change],
        settings: DecodingConfig,
    ) -> None:
        self.model, self.changes, self.ends = assistant.model, changes, ends
        self.count = settings.num_assistant_tokens
        self.threshold = settings.assistant_confidence_threshold
        self.state = self.model.prefill(assistant.batch)
        if not self.state.droppable:
            raise ConfigError(
                "assistant: its recurrent layers cannot take back a token; give a Transformer"
            )
        self.read = assistant.batch.inputs[-1][0].tolist()
        """The tokens that the state counts."""

    def guess(self, ids_1L: Tensor, most: int) -> list[int]:
        """See `Draft`."""
        known = ids_1L[0].tolist()
        pairs = zip(self.read, known[:-1], strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        same = min(len(self.read), len(known) - 1) if same is None else same
        self.state.drop(len(self.read) - same)
        self.read, unread, guessed = known[:same], known[same:], list[int]()
        while len(guessed) < min(self.count, most):
            logits_1V = self.model.step(ids_1L.new_tensor([unread]), self.state)
            self.read += unread
            scores_1V = logits_1V.float()
            for change in self.changes:
                scores_1V = change(ids_1L, scores_1V)
            token = int(scores_1V.argmax())
            guessed.append(token)
            sure = float(scores_1V.softmax(-1)[0, token]) >= self.threshold
            if not sure or token in self.ends:
                break
            unread = [token]
            ids_1L = torch.cat([ids_1L, ids_1L.new_tensor([unread])], dim=1)
        return guessed


def looked_up(ids: Sequence[int], count: int) -> list[int]:
    """`count` tokens after the last earlier place with the same end, of two tokens or one; none if
    there is no such place. What would be beyond the end goes on as between the two places."""
    for size in (2, 1) if count > 0 else ():
        end = list(ids[-size:])
        for place in range(len(ids) - size, size - 1, -1):
            if list(ids[place - size : place]) == end:
                return (list(ids[place:]) * count)[:count]
    return []

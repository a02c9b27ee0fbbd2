"""What a written text may be: one of some choices, or a text of a grammar.

Shape letters: N texts, L tokens so far, V vocabulary.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.config.decoding import DecodingConfig
from skillweave.config.errors import reading
from skillweave.data.processors.text import TextProcessor
from skillweave.data.processors.token_bytes import token_bytes
from skillweave.data.processors.tokenizer import (
    adds_spaces_at_han,
    ends_with_han,
    without_spaces_at_han,
)

Ids = tuple[int, ...]
WHITESPACE = r" |\n {0,32}"
"""What may stand between two parts of a JSON text: with any whitespace, models often write nothing
else for ever."""
ANY_SPELLING = '%llguidance {"no_forcing": true}'
"""Else a text may only have the tokens that the tokenizer would give it."""


class Constraint(ABC):
    """A change of scores: -∞ for tokens after which no text of the constraint can follow. A text
    has no special tokens.

    `ends`: tokens that end a text; they may follow a complete one.
    """

    def __init__(self, processor: TextProcessor, ends: Sequence[int]) -> None:
        self.tokenizer, self.vocabulary = processor.tokenizer, processor.vocabulary
        self.special, self.ends = processor.special_ids, list(ends)

    def text(self, ids: Sequence[int]) -> str | None:
        """The text of tokens before an end; None where it is unfinished."""
        return self.spelt(tuple(token for token in ids if token not in self.special))

    @abstractmethod
    def spelt(self, ids: Ids) -> str | None:
        """As `text`, of tokens that are not special."""

    @abstractmethod
    def allowed(self, texts: Sequence[Ids]) -> Tensor:
        """[N, V] whether a token may follow the tokens of a text."""

    def __call__(self, ids_NL: Tensor, scores_NV: Tensor, first: int, last: int) -> Tensor:
        """The scores of tokens after texts whose tokens from `first` on are bound. `last`: L before
        the last token that there is room for, which can only be an end."""
        if ids_NL.shape[1] < first:
            return scores_NV
        allowed_NV = self.allowed([tuple(row) for row in ids_NL[:, first:].tolist()])
        if ids_NL.shape[1] == last:
            ends_V = torch.zeros_like(allowed_NV[0])
            ends_V[self.ends] = True
            allowed_NV &= ends_V
        # a model may have more scores than its tokenizer has tokens
        allowed_NV = F.pad(allowed_NV, (0, scores_NV.shape[1] - allowed_NV.shape[1]))
        return scores_NV.masked_fill(~allowed_NV.to(scores_NV.device), -torch.inf)


class Choices(Constraint):
    """One of some texts, spelt by the tokens that the tokenizer gives it.

    The token sequences in order are a trie: those that begin with the same tokens are neighbours.
    Raises ConfigError for no choices, and for one with a character that the tokenizer lacks.
    """

    def __init__(
        self, choices: Sequence[str], processor: TextProcessor, ends: Sequence[int]
    ) -> None:
        super().__init__(processor, ends)
        try:
            encoded = self.tokenizer.encode_batch(list(choices), add_special_tokens=False)
        except (TypeError, UnicodeError):
            raise ConfigError("choices: one is not valid Unicode; remove it") from None
        self.texts: dict[Ids, str] = {}
        for choice, one in zip(choices, encoded, strict=True):
            if self.special.intersection(one.ids):
                raise ConfigError(
                    f"choices: the tokenizer has no tokens for {choice!r} ({' '.join(one.tokens)});"
                    " write it with other characters, or remove it"
                )
            # of choices that are the same to the model, the first
            self.texts.setdefault(tuple(one.ids), choice)
        self.order = sorted(self.texts)
        self.following = lru_cache(1024)(self._following)

    def spelt(self, ids: Ids) -> str | None:
        """See `Constraint`."""
        return self.texts.get(ids)

    def allowed(self, texts: Sequence[Ids]) -> Tensor:
        """See `Constraint`."""
        allowed_NV = torch.zeros(len(texts), self.vocabulary, dtype=torch.bool)
        for row, ids in zip(allowed_NV, texts, strict=True):
            row[self.following(ids)] = True
        return allowed_NV

    def _following(self, ids: Ids) -> list[int]:
        found = list(self.ends) if ids in self.texts else []
        length = len(ids)
        place = bisect_left(self.order, (*ids, 0))
        while place < len(self.order) and self.order[place][:length] == ids:
            found.append(token := self.order[place][length])
            place = bisect_left(self.order, (*ids, token + 1), place)
        return found


class Grammar(Constraint):
    """A text of a grammar in the language of llguidance, which is Lark's with additions.

    `kind`: the setting that gives it. Raises ConfigError for a grammar that cannot be read, for one
    that no text satisfies, and without the library.
    """

    def __init__(
        self, grammar: str, kind: str, processor: TextProcessor, ends: Sequence[int]
    ) -> None:
        super().__init__(processor, ends)
        guidance, self.kind = import_guidance(kind), kind
        first, later = token_bytes(self.tokenizer, self.special)
        self.silent = {i for i, part in enumerate(first) if not part} - self.special
        """Tokens of which a text has nothing where they begin it, such as LLaMA's space."""
        self.joins, after = adds_spaces_at_han(self.tokenizer), later
        self.han: set[int] = set()
        """Tokens after which there is no space, though others follow with one."""
        if self.joins:
            self.han = {i for i, part in enumerate(first) if ends_with_han(part.decode())}
            after = [part.removeprefix(b" ") for part in later]
            later = [without_spaces_at_han(part.decode()).encode() for part in later]
        # where a token has other bytes it has another number
        parts: list[bytes] = []
        self.later, self.first, self.after = (_place(form, parts) for form in (later, first, after))
        known = guidance.LLTokenizer(_Vocabulary(parts))
        self.start = guidance.LLMatcher(known, f"{grammar}\n{ANY_SPELLING}\n", log_level=0)
        self.states: dict[Ids, Any] = {(): self.start}
        if self.start.is_error():
            raise ConfigError(f"{kind}: {self._error(self.start)}")
        if not self.allowed([()]).any():
            raise ConfigError(
                f"{kind}: no text that the model's tokens can spell satisfies it; widen it"
            )

    def spelt(self, ids: Ids) -> str | None:
        """See `Constraint`."""
        state = self._after(ids)
        done = state is not None and state.is_accepting()
        if not done:
            return None
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return without_spaces_at_han(text) if self.joins else text

    def allowed(self, texts: Sequence[Ids]) -> Tensor:
        """See `Constraint`."""
        self.states = {ids: self._after(ids) for ids in dict.fromkeys(texts)}
        masks = {ids: self._allowed(ids, state) for ids, state in self.states.items()}
        return torch.from_numpy(np.stack([masks[ids] for ids in texts]))

    def _allowed(self, ids: Ids, state: Any) -> np.ndarray:
        if state is None:
            return np.zeros(self.vocabulary, dtype=bool)
        bits = np.frombuffer(state.compute_bitmask(), dtype=np.uint8)
        begin = self._numbers_after(ids)
        end = begin + self.vocabulary
        mask = np.unpackbits(bits, count=end, bitorder="little").view(bool)[begin:]
        fault = self._error(state)
        if fault and not fault.startswith("NoExtension"):
            raise ConfigError(f"{self.kind}: {fault}; make it simpler")
        if not ids:
            mask[list(self.silent)] = True
        mask[self.ends] = state.is_accepting()
        return mask

    def _after(self, ids: Ids) -> Any:
        """The state of the grammar after some tokens; None where they do not satisfy it."""
        if ids in self.states or not ids:
            return self.states.get(ids, self.start)
        before = self.states[ids[:-1]] if ids[:-1] in self.states else self._after(ids[:-1])
        if before is None:
            return None
        state, token = before.deep_copy(), ids[-1]
        if len(ids) == 1 and token in self.silent:
            return state
        return state if state.consume_token(token + self._numbers_after(ids[:-1])) else None

    def _numbers_after(self, ids: Ids) -> int:
        """The first number of the tokens as they are after others."""
        if not ids:
            return self.first
        return self.after if ids[-1] in self.han else self.later

    def _error(self, state: Any) -> str:
        lines = state.get_error().split("\n<")[0].strip().splitlines()
        return "\n".join(line for line in lines if ANY_SPELLING not in line)


def _place(form: list[bytes], parts: list[bytes]) -> int:
    """Where the bytes of all tokens stand among others; they are added where they do not."""
    size = len(form)
    places = range(0, len(parts), size)
    found = next((begin for begin in places if parts[begin : begin + size] == form), None)
    if found is not None:
        return found
    parts += form
    return len(parts) - size


class _Vocabulary:
    """What llguidance asks of a tokenizer. Its last token is an end that nobody writes."""

    bos_token_id = None
    special_token_ids = ()
    is_tokenizer_wrapper = True

    def __init__(self, parts: list[bytes]) -> None:
        self.tokens, self.eos_token_id = [*parts, b""], len(parts)

    def __call__(self, text: str) -> list[int]:
        return []


def import_guidance(kind: str) -> Any:
    """The library of grammars. Raises ConfigError where it is not installed."""
    try:
        import llguidance  # an optional extra
    except ModuleNotFoundError:
        raise ConfigError(
            f"{kind} needs llguidance; run pip install 'skillweave[constraints]', or give choices"
        ) from None
    return llguidance


def build_constraint(
    settings: DecodingConfig, processor: TextProcessor, ends: Sequence[int]
) -> Constraint | None:
    """The constraint of some settings; None without one. Raises ConfigError: see `Choices` and
    `Grammar`."""
    kind = settings.constraint
    if kind is None:
        return None
    given = getattr(settings, kind)
    if kind == "choices":
        return Choices(given, processor, ends)
    with reading(kind, "valid"):
        if kind == "json_schema":
            layout = {"whitespace_pattern": WHITESPACE, **given.get("x-guidance", {})}
            given = f"start: %json {json.dumps({**given, 'x-guidance': layout})}"
        elif kind == "regex":
            read = import_guidance(kind).LLMatcher.grammar_from_regex(given)
            given = json.loads(read)["grammars"][0]["lark_grammar"]
        given.encode()  # raises for half a surrogate pair
    return Grammar(given, kind, processor, ends)

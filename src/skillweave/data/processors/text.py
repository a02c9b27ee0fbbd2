"""Text and code to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer

from skillweave.batch import Features, Modality
from skillweave.config.base import ConfigError, nearest
from skillweave.config.data import AugmentConfig
from skillweave.config.streams import TextStream
from skillweave.data.processors.base import DEFAULT_LIMITS, NO_AUGMENT, BadInput, reason
from skillweave.data.processors.media import open_media
from skillweave.data.processors.tokenizer import CLS_CODE, ROLES, SPECIAL_TOKENS
from skillweave.data.tokenized import Pieces, fingerprint

CHARACTERS_PER_PIECE = 64
"""Of a text only so many characters per position are looked at, so that a huge file costs no more
than a long one."""


PROBES = ("a", "1", "的", ".")
"""Texts of which most tokenisers know one, to see what they put around texts; of others their own
pieces are tried."""


class TextProcessor:
    """Text or code to `[CLS] pieces`: one position each, at most the stream's `max_length`
    (SkillNet section 3.3).

    What a tokeniser of Hugging Face's puts around a text, and around and between two, stands there
    here too: [SEP] behind a text (BERT, BART, CLIP), no [CLS] before it (T5, GPT-2), two of them
    between texts (RoBERTa).
    """

    def __init__(
        self,
        stream: TextStream,
        tokenizer: Tokenizer,
        modality: Modality = Modality.TEXT,
        augment: AugmentConfig = NO_AUGMENT,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = stream.max_length
        self.dropout = augment.word_dropout
        self.names = {**ROLES, **stream.tokenizer.special}
        if modality is Modality.CODE and tokenizer.token_to_id(CLS_CODE) is not None:
            self.names["cls"] = CLS_CODE
        found = {tokenizer.token_to_id(name) for name in (*self.names.values(), *SPECIAL_TOKENS)}
        self.special_ids = frozenset(number for number in found if number is not None)
        self.vocabulary = tokenizer.get_vocab_size()

    @property
    def cls(self) -> int:
        """The number of [CLS]. As of the others, raises ConfigError where the tokeniser has
        none."""
        return self.special("cls")

    @property
    def separator(self) -> int:
        """The number of [SEP]."""
        return self.special("separator")

    @property
    def mask(self) -> int:
        """The number of [MASK]."""
        return self.special("mask")

    def special(self, role: str) -> int:
        """The number of the special token of a role. Raises ConfigError where the tokeniser has
        none."""
        number = self.tokenizer.token_to_id(self.names[role])
        if number is None:
            remedy = f"name it under the stream's tokenizer.special: {{{role}: ...}}"
            raise ConfigError(
                f"the tokeniser has no {self.names[role]!r}, which the task needs; {remedy}"
            )
        return number

    def numbers(self, tokens: Sequence[str]) -> list[int]:
        """The numbers of tokens by name. Raises ConfigError for one that the tokeniser does not
        have."""
        found = []
        for token in tokens:
            if (number := self.tokenizer.token_to_id(token)) is None:
                added = [
                    token.content for token in self.tokenizer.get_added_tokens_decoder().values()
                ]
                raise ConfigError(f"the tokeniser has no token {token!r}{nearest(token, added)}")
            found.append(number)
        return found

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """What stands before and behind a text by itself."""
        before, *_, after = self._frame(1)
        return before, after

    @cached_property
    def pair_frame(self) -> tuple[list[int], list[int], list[int]]:
        """What stands before, between and behind two texts."""
        before, between, after = self._frame(2)
        return before, between, after

    def _frame(self, texts: int) -> list[list[int]]:
        """Special tokens before each text, and those behind the last one."""
        if self.tokenizer.post_processor is None:  # trained here: nothing is said in it
            return [[self.cls], *([[self.separator], [self.separator]] if texts == 2 else [[]])]
        encoded = (
            self.tokenizer.encode(text, text if texts == 2 else None)
            for text in (*PROBES, *self.tokenizer.get_vocab())
        )
        found = next(one for one in encoded if {*range(texts)} <= {*one.sequence_ids})
        parts: list[list[int]] = [[]]
        for number, sequence in zip(found.ids, found.sequence_ids, strict=True):
            if sequence is None:
                parts[-1].append(number)
            elif sequence == len(parts) - 1:
                parts.append([])
        if self.names["cls"] == CLS_CODE:
            parts[0] = [self.cls]
        return parts

    @cached_property
    def spaced(self) -> bool:
        """Whether a word behind a space has other pieces than at the beginning (GPT-2, RoBERTa)."""
        return self.encode(" a").ids != self.encode("a").ids

    @cached_property
    def fingerprint(self) -> str:
        """The tokeniser's, as shards note it."""
        return fingerprint(self.tokenizer)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A tokeniser forgets on its way to a worker process that special tokens spelt out in a text
        # are plain text.
        self.__dict__.update(state)
        self.tokenizer.encode_special_tokens = True

    def __call__(
        self,
        value: Any,
        rng: np.random.Generator | None = None,
        *,
        cls: bool | None = None,
        separator: bool | None = None,
        max_length: int | None = None,
    ) -> Features:
        """Token ids [L] of a string, or of a UTF-8 file given as bytes, `Path` or {"bytes",
        "path"}.

        `cls`, `separator`: as for `assemble`, but that absent both are as the tokeniser has it.
        `max_length`: fewer positions than the stream's. With `rng`, a share of the pieces becomes
        [MASK], never a special token. Raises BadInput when there is no piece.
        """
        before, after = self._around(cls, separator)
        room = min(max_length or self.max_length, self.max_length) - len(before) - len(after)
        return self.assemble(self.pieces(value, room), rng, cls=cls, separator=separator)

    def _around(self, cls: bool | None, separator: bool | None) -> tuple[list[int], list[int]]:
        before = self.frame[0] if cls is None else [self.cls] if cls else []
        return before, self.frame[1] if separator is None else [self.separator] if separator else []

    def pieces(self, value: Any, room: int) -> list[int]:
        """The ids of a text's first `room` pieces. Raises BadInput when there is none, ConfigError
        for another tokeniser's."""
        if isinstance(value, Pieces):
            if value.tokenizer != self.fingerprint:
                raise ConfigError(
                    "the shards were cut with another tokeniser than the model's; name theirs"
                    " (tokenizer.path)"
                )
            pieces = value.ids[: max(room, 0)].tolist()
        else:
            text = value if isinstance(value, str) else _read(value)
            pieces = self.encode(text[: max(room, 1) * CHARACTERS_PER_PIECE]).ids[: max(room, 0)]
        if not pieces:
            raise BadInput("text without tokens")
        return pieces

    def encode(self, text: str) -> Encoding:
        """All pieces of a text, without special tokens, each with the characters it stands for.
        Raises BadInput."""
        try:
            return self.tokenizer.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeError):  # half a surrogate pair, as JSON may hold
            raise BadInput("not valid Unicode") from None

    def assemble(
        self,
        pieces: Sequence[int | None],
        rng: np.random.Generator | None = None,
        *,
        cls: bool | None = None,
        separator: bool | None = False,
    ) -> Features:
        """Pieces with [CLS] ([CLS_code] for code) before and [SEP] behind them; with `rng` a share
        of them becomes [MASK].

        `cls`, `separator`: whether they are there; None for what the tokeniser puts there around a
        text by itself.
        """
        before, after = self._around(cls, separator)
        ids = [*before, *self._dropped(pieces, rng), *after]
        return Features(torch.tensor(ids), len(ids))

    def _dropped(
        self, pieces: Sequence[int | None], rng: np.random.Generator | None
    ) -> Sequence[int | None]:
        if rng is None or not self.dropout:
            return pieces
        dropped = rng.random(len(pieces)) < self.dropout
        return [self.mask if drop else piece for piece, drop in zip(pieces, dropped, strict=True)]

    def inside(self, features: Features) -> slice:
        """Where the pieces of a text by itself stand."""
        before, after = self.frame
        return slice(len(before), features.length - len(after))

    def pair(
        self, first: Any, second: Any, rng: np.random.Generator | None = None
    ) -> tuple[Features, Features]:
        """`[CLS] first [SEP]` and `second [SEP]`, together at most the stream's `max_length`; the
        longer one is cut (BERT).

        Raises BadInput where either has no piece.
        """
        room = self.pair_room
        one, other = self.pieces(first, room), self.pieces(second, room)
        # the longer one has what is left over, of equal ones the second
        half = (room + (len(one) > len(other))) // 2
        one = one[: max(half, room - len(other))]
        return self.join(one, other[: room - len(one)], rng)

    @property
    def pair_room(self) -> int:
        """Pieces that two texts may have together."""
        return self.max_length - sum(map(len, self.pair_frame))

    def join(
        self,
        first: Sequence[int | None],
        second: Sequence[int | None],
        rng: np.random.Generator | None = None,
    ) -> tuple[Features, Features]:
        """The pieces of two texts as the parts of one sequence."""
        before, between, after = self.pair_frame
        one = [*before, *self._dropped(first, rng), *between]
        other = [*self._dropped(second, rng), *after]
        return Features(torch.tensor(one), len(one)), Features(torch.tensor(other), len(other))


def _read(value: Any) -> str:
    if not isinstance(value, bytes | Path | Mapping):
        raise BadInput(f"expected text, found {type(value).__name__}")
    with open_media(value, DEFAULT_LIMITS) as file:
        try:
            return file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"not UTF-8 ({reason(error)})") from None

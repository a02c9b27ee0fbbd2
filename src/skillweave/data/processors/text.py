"""Text and code to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Encoding, Tokenizer

from skillweave.batch import Features, Modality
from skillweave.config.base import ConfigError, nearest
from skillweave.config.data import AugmentConfig
from skillweave.config.streams import TextStream
from skillweave.data.processors.base import DEFAULT_LIMITS, NO_AUGMENT, BadInput, describe_error
from skillweave.data.processors.media import open_media
from skillweave.data.processors.tokenizer import CLS_CODE, ROLES, SPECIAL_TOKENS
from skillweave.data.tokenized import TokenIds, fingerprint

CHARACTERS_PER_TOKEN = 64
"""Only this many characters of a text are read per position, so that a huge file costs no more than
a long one."""

PROBES = ("a", "1", "的", ".")
"""Texts that show which special tokens a tokenizer puts around texts. Most tokenizers know one of
them; for others, the tokens of their vocabulary are tried."""

Ids = Sequence[int | None]


class TextProcessor:
    """Text or code to `[CLS] tokens`: one position each, at most the stream's `max_length`
    (SkillNet section 3.3).

    The special tokens around a text, and around and between two texts, are those of the Hugging
    Face tokenizer: [SEP] after a text (BERT, BART, CLIP), no [CLS] (T5, GPT-2), two [SEP] between
    texts (RoBERTa).
    """

    def __init__(
        self,
        stream: TextStream,
        tokenizer: Tokenizer,
        modality: Modality = Modality.TEXT,
        augment: AugmentConfig = NO_AUGMENT,
    ) -> None:
        self.tokenizer, self.parse_special = tokenizer, stream.tokenizer.parse_special
        tokenizer.encode_special_tokens = not self.parse_special
        self.max_length = min(stream.max_length, stream.max_tokens or stream.max_length)
        self.filled = stream.pad_to_max_length
        self.dropout = augment.word_dropout
        self.names = {**ROLES, **stream.tokenizer.special}
        if modality is Modality.CODE and tokenizer.token_to_id(CLS_CODE) is not None:
            self.names["cls"] = CLS_CODE
        found = {tokenizer.token_to_id(name) for name in (*self.names.values(), *SPECIAL_TOKENS)}
        added = tokenizer.get_added_tokens_decoder().items()
        found |= {number for number, token in added if token.special}
        self.special_ids = frozenset(number for number in found if number is not None)
        self.vocabulary = tokenizer.get_vocab_size()

    @property
    def cls(self) -> int:
        """The id of [CLS]. This and the next two raise ConfigError when the tokenizer has none."""
        return self.special("cls")

    @property
    def separator(self) -> int:
        """The id of [SEP]."""
        return self.special("separator")

    @property
    def mask(self) -> int:
        """The id of [MASK]."""
        return self.special("mask")

    def special(self, role: str) -> int:
        """The id of the special token of a role. Raises ConfigError when the tokenizer has none."""
        number = self.tokenizer.token_to_id(self.names[role])
        if number is None:
            remedy = f"name it under the stream's tokenizer.special: {{{role}: ...}}"
            raise ConfigError(
                f"the tokenizer has no {self.names[role]!r}, which the task needs; {remedy}"
            )
        return number

    def numbers(self, tokens: Sequence[str]) -> list[int]:
        """The ids of tokens by name. Raises ConfigError for a token that the tokenizer does not
        have."""
        ids = []
        for token in tokens:
            number = self.tokenizer.token_to_id(token)
            if number is None:
                added = [t.content for t in self.tokenizer.get_added_tokens_decoder().values()]
                raise ConfigError(f"the tokenizer has no token {token!r}{nearest(token, added)}")
            ids.append(number)
        return ids

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a single text."""
        before, *_, after = self._special_tokens_around(1)
        return before, after

    @cached_property
    def pair_frame(self) -> tuple[list[int], list[int], list[int]]:
        """The special tokens before, between and after two texts."""
        before, between, after = self._special_tokens_around(2)
        return before, between, after

    def _special_tokens_around(self, texts: int) -> list[list[int]]:
        """The special tokens before each text, and those after the last one."""
        if self.tokenizer.post_processor is None:  # trained here, so it does not say
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
        """Whether a word after a space has other tokens than at the beginning (GPT-2, RoBERTa)."""
        return self.encode(" a").ids != self.encode("a").ids

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the tokenizer, which shards store."""
        return fingerprint(self.tokenizer)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # pickling loses the setting
        self.__dict__.update(state)
        self.tokenizer.encode_special_tokens = not self.parse_special

    def __call__(
        self,
        value: Any,
        rng: np.random.Generator | None = None,
        *,
        cls: bool | None = None,
        separator: bool | None = None,
        max_length: int | None = None,
    ) -> Features:
        """Token ids [L] of a string, of `TokenIds`, or of a UTF-8 file given as bytes, `Path` or
        {"bytes", "path"}.

        `rng`: draws the augmentation, which replaces a share of the tokens by [MASK]; None for
        none. `cls`, `separator`: see `assemble`. `max_length`: fewer positions than the stream's.
        A stream with `pad_to_max_length` has [PAD] at all other positions. Raises BadInput for a
        text without tokens.
        """
        before, after = self._frame_of(cls, separator)
        length = min(max_length or self.max_length, self.max_length)
        room = length - len(before) - len(after)
        ids, truncated = self.truncate(value, room)
        features = self.assemble(ids, rng, cls=cls, separator=separator)
        if not self.filled:
            return replace(features, truncated=truncated)
        padding = (0, length - features.length)
        data = F.pad(features.data, padding, value=self.special("pad"))
        return Features(data, length, truncated=truncated)

    def _frame_of(self, cls: bool | None, separator: bool | None) -> tuple[list[int], list[int]]:
        before = self.frame[0] if cls is None else [self.cls] if cls else []
        return before, self.frame[1] if separator is None else [self.separator] if separator else []

    def token_ids(self, value: Any, room: int) -> list[int]:
        """The ids of the first `room` tokens of a text, without special tokens.

        Raises BadInput when there are none, and ConfigError for the ids of another tokenizer.
        """
        return self.truncate(value, room)[0]

    def truncate(self, value: Any, room: int) -> tuple[list[int], bool]:
        """The tokens of `token_ids`, and whether the text has more."""
        room = max(room, 0)
        if isinstance(value, TokenIds):
            if value.tokenizer != self.fingerprint:
                raise ConfigError(
                    "the shards were made with another tokenizer than the model's; name theirs"
                    " (tokenizer.path)"
                )
            ids, more = value.ids[: room + 1].tolist(), False
        else:
            text = self.read(value)
            characters = max(room, 1) * CHARACTERS_PER_TOKEN
            ids, more = self.encode(text[:characters]).ids, len(text) > characters
        if not ids[:room]:
            raise BadInput("text without tokens")
        return ids[:room], more or len(ids) > room

    def read(self, value: Any) -> str:
        """The text of a string, or of a UTF-8 file as in `__call__`. Raises BadInput."""
        return value if isinstance(value, str) else _read_text(value)

    def encode(self, text: str | list[str]) -> Encoding:
        """All tokens of a text, or of words, without special tokens, with their characters. Raises
        BadInput."""
        words = isinstance(text, list)
        try:
            return self.tokenizer.encode(text, is_pretokenized=words, add_special_tokens=False)
        except (TypeError, UnicodeError):  # half a surrogate pair, as JSON may hold
            raise BadInput("not valid Unicode") from None

    def encode_masked(self, text: str) -> list[int]:
        """All tokens of a text in which a [MASK] that is spelt out stands for itself. Raises
        BadInput."""
        first, *rest = text.replace(ROLES["mask"], self.names["mask"]).split(self.names["mask"])
        tails = (token for part in rest for token in (self.mask, *self.encode(part).ids))
        return [*self.encode(first).ids, *tails]

    def assemble(
        self,
        ids: Ids,
        rng: np.random.Generator | None = None,
        *,
        cls: bool | None = None,
        separator: bool | None = False,
    ) -> Features:
        """Token ids with [CLS] ([CLS_code] for code) before them and [SEP] after them.

        `rng`: draws the tokens that [MASK] replaces; None for none. `cls`, `separator`: whether to
        add them; None for what the tokenizer puts around a single text.
        """
        before, after = self._frame_of(cls, separator)
        return _features([*before, *self._drop_tokens(ids, rng), *after])

    def _drop_tokens(self, ids: Ids, rng: np.random.Generator | None) -> Ids:
        if rng is None or not self.dropout:
            return ids
        dropped = rng.random(len(ids)) < self.dropout
        return [self.mask if drop else number for number, drop in zip(ids, dropped, strict=True)]

    def inside(self, features: Features) -> slice:
        """The positions of the tokens of a single text, without the special ones around it."""
        before, after = self.frame
        return slice(len(before), features.length - len(after))

    def pair(
        self, first: Any, second: Any, rng: np.random.Generator | None = None
    ) -> tuple[Features, Features]:
        """`[CLS] first [SEP]` and `second [SEP]`, together at most the stream's `max_length`. The
        longer text is truncated (BERT).

        `rng`: draws the augmentation; None for none. Raises BadInput for a text without tokens.
        """
        room = self.pair_room
        (one, more), (other, rest) = self.truncate(first, room), self.truncate(second, room)
        truncated = more or rest or len(one) + len(other) > room
        # the longer text gets the odd position, of equal ones the second
        half = (room + (len(one) > len(other))) // 2
        one = one[: max(half, room - len(other))]
        head, body = self.join(one, other[: room - len(one)], rng)
        return head, replace(body, truncated=truncated)

    @property
    def pair_room(self) -> int:
        """The most tokens of two texts together."""
        return self.max_length - sum(map(len, self.pair_frame))

    def join(
        self, first: Ids, second: Ids, rng: np.random.Generator | None = None
    ) -> tuple[Features, Features]:
        """The token ids of two texts as the parts of one sequence. `rng`: as in `assemble`."""
        before, between, after = self.pair_frame
        one = [*before, *self._drop_tokens(first, rng), *between]
        return _features(one), _features([*self._drop_tokens(second, rng), *after])


def _features(ids: Ids) -> Features:
    return Features(torch.tensor(ids), len(ids))


def _read_text(value: Any) -> str:
    if not isinstance(value, bytes | Path | Mapping):
        raise BadInput(f"expected text, found {type(value).__name__}")
    with open_media(value, DEFAULT_LIMITS) as file:
        try:
            return file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"not UTF-8 ({describe_error(error)})") from None

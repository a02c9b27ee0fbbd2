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
from skillweave.config.recipe import AugmentConfig
from skillweave.config.streams import TextStream
from skillweave.data.pieces import Pieces, fingerprint
from skillweave.data.processors.base import DEFAULT_LIMITS, NO_AUGMENT, BadInput, reason
from skillweave.data.processors.media import open_media
from skillweave.data.processors.tokenizer import CLS_CODE, ROLES, SPECIAL_TOKENS

CHARACTERS_PER_PIECE = 64
"""Of a text only so many characters per position are looked at, so that a huge file costs no more than a long one."""


class TextProcessor:
    """Text or code to `[CLS] pieces`: one position each, at most the stream's `max_length` (SkillNet section 3.3).

    A tokeniser of Hugging Face's that ends texts with [SEP] by itself (BERT, BART, CLIP) does so here too, and one that begins
    them with nothing (T5) adds no [CLS] either.
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
        """The number of [CLS]. As of the others, raises ConfigError where the tokeniser has none."""
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
        """The number of the special token of a role. Raises ConfigError where the tokeniser has none."""
        number = self.tokenizer.token_to_id(self.names[role])
        if number is None:
            remedy = f"name it under the stream's tokenizer.special: {{{role}: ...}}"
            raise ConfigError(f"the tokeniser has no {self.names[role]!r}, which the task needs; {remedy}")
        return number

    def numbers(self, tokens: Sequence[str]) -> list[int]:
        """The numbers of tokens by name. Raises ConfigError for one that the tokeniser does not have."""
        found = []
        for token in tokens:
            if (number := self.tokenizer.token_to_id(token)) is None:
                added = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]
                raise ConfigError(f"the tokeniser has no token {token!r}{nearest(token, added)}")
            found.append(number)
        return found

    @cached_property
    def opened(self) -> bool:
        """Whether a text by itself begins with [CLS]."""
        own = self.tokenizer.encode("").ids
        return not self.closed or own[0] == self.tokenizer.token_to_id(self.names["cls"])

    @cached_property
    def closed(self) -> bool:
        """Whether a text by itself ends with [SEP]."""
        return self.tokenizer.encode("").ids[-1:] == [self.tokenizer.token_to_id(self.names["separator"])]

    @cached_property
    def fingerprint(self) -> str:
        """The tokeniser's, as shards note it."""
        return fingerprint(self.tokenizer)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A tokeniser forgets on its way to a worker process that special tokens spelt out in a text are plain text.
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
        """Token ids [L] of a string, or of a UTF-8 file given as bytes, `Path` or {"bytes", "path"}.

        `cls`: begin with [CLS] ([CLS_code] for code). `separator`: end with [SEP]. Absent, both as the tokeniser does.
        `max_length`: fewer positions than the stream's. With `rng`, a share of the pieces becomes [MASK], never a special token.
        Raises BadInput when there is no piece.
        """
        cls = self.opened if cls is None else cls
        separator = self.closed if separator is None else separator
        room = min(max_length or self.max_length, self.max_length) - cls - separator
        return self.assemble(self.pieces(value, room), rng, cls=cls, separator=separator)

    def pieces(self, value: Any, room: int) -> list[int]:
        """The ids of a text's first `room` pieces. Raises BadInput when there is none, ConfigError for another tokeniser's."""
        if isinstance(value, Pieces):
            if value.tokenizer != self.fingerprint:
                raise ConfigError("the shards were cut with another tokeniser than the model's; name theirs (tokenizer.path)")
            pieces = value.ids[: max(room, 0)].tolist()
        else:
            text = value if isinstance(value, str) else _read(value)
            pieces = self.encode(text[: max(room, 1) * CHARACTERS_PER_PIECE]).ids[: max(room, 0)]
        if not pieces:
            raise BadInput("text without tokens")
        return pieces

    def encode(self, text: str) -> Encoding:
        """All pieces of a text, without special tokens, each with the characters it stands for. Raises BadInput."""
        try:
            return self.tokenizer.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeError):  # half a surrogate pair, as JSON may hold
            raise BadInput("not valid Unicode") from None

    def assemble(
        self, pieces: Sequence[int | None], rng: np.random.Generator | None = None, *, cls: bool = True, separator: bool = False
    ) -> Features:
        """Pieces with [CLS] before and [SEP] behind them; with `rng` a share of them becomes [MASK]."""
        if rng is not None and self.dropout:
            dropped = rng.random(len(pieces)) < self.dropout
            pieces = [self.mask if drop else piece for piece, drop in zip(pieces, dropped, strict=True)]
        ids = [*([self.cls] if cls else []), *pieces, *([self.separator] if separator else [])]
        return Features(torch.tensor(ids), len(ids))

    def inside(self, features: Features) -> slice:
        """Where the pieces of a text by itself stand."""
        return slice(int(self.opened), features.length - self.closed)

    def pair(self, first: Any, second: Any, rng: np.random.Generator | None = None) -> tuple[Features, Features]:
        """`[CLS] first [SEP]` and `second [SEP]`, together at most the stream's `max_length`; the longer one is cut (BERT).

        Raises BadInput where either has no piece.
        """
        room = self.max_length - 3
        one, other = self.pieces(first, room), self.pieces(second, room)
        keep = max(room // 2, room - len(other))
        one = one[:keep]
        other = other[: room - len(one)]
        return self.assemble(one, rng, separator=True), self.assemble(other, rng, cls=False, separator=True)


def _read(value: Any) -> str:
    if not isinstance(value, bytes | Path | Mapping):
        raise BadInput(f"expected text, found {type(value).__name__}")
    with open_media(value, DEFAULT_LIMITS) as file:
        try:
            return file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"not UTF-8 ({reason(error)})") from None

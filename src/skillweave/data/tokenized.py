"""Texts that were tokenized beforehand: what a row of a shard holds in place of a text."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZING_PARTS = ("normalizer", "pre_tokenizer", "model")
"""The parts of a tokenizer that decide the tokens of a text. Special tokens may be added later."""


@dataclass(frozen=True)
class TokenIds:
    """The token ids [L] of a text, without special tokens, and the fingerprint of its tokenizer."""

    ids: NDArray[np.integer]
    tokenizer: str

    def __len__(self) -> int:
        return len(self.ids)


def fingerprint(tokenizer: Tokenizer) -> str:
    """A hash of the parts of a tokenizer that decide the tokens of a text."""
    data = json.loads(tokenizer.to_str())
    parts = [data[name] for name in TOKENIZING_PARTS]
    if not tokenizer.encode_special_tokens:
        parts.append("special tokens are parsed")
    content = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]

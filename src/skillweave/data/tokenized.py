"""Texts cut into wordpieces beforehand: what a row of a shard holds in place of a text."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

TELLING = ("normalizer", "pre_tokenizer", "model")
"""The parts of a tokeniser that decide how a text is cut; special tokens may be added later."""


@dataclass(frozen=True)
class Pieces:
    """A text's wordpieces [L], without special tokens, and the fingerprint of the tokeniser that
    cut it."""

    ids: NDArray[np.integer]
    tokenizer: str

    def __len__(self) -> int:
        return len(self.ids)


def fingerprint(tokenizer: Tokenizer) -> str:
    """A hash of what decides how a text is cut."""
    parts = json.loads(tokenizer.to_str())
    return hashlib.sha256(
        json.dumps([parts[name] for name in TELLING], sort_keys=True).encode()
    ).hexdigest()[:16]

"""What is masked in pretraining."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import IGNORE
from skillweave.config.data import WORD_SHARE
from skillweave.data.processors.base import BadInput

FRAME_SHARE = 0.05
"""Share of frames that begin a masked span (SkillNet section 4.2)."""
FRAME_SPAN = 10
"""Frames in a masked span (SkillNet section 4.2, wav2vec 2.0)."""


def mask_words(
    ids_L: Tensor,
    special: frozenset[int],
    mask: int,
    vocabulary: int,
    rng: np.random.Generator,
    share: float = WORD_SHARE,
    groups_L: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """BERT's masking: of `share` of the tokens 80 % become [MASK], 10 % a random token, 10 % stay.

    `groups_L`: the number of the word or span that each position is part of; these are chosen
    whole, and meet the same fate. Special tokens are never chosen, and at least one token always
    is. Returns (ids [L], labels [L] with IGNORE elsewhere). Raises BadInput when there are special
    tokens only (a text of unknown characters).
    """
    ids = ids_L.numpy().copy()
    candidates = np.flatnonzero(~np.isin(ids, list(special)))
    if not len(candidates):
        raise BadInput("nothing but special tokens to mask")
    if groups_L is None:
        chosen = candidates[rng.random(len(candidates)) < share]
        chosen = chosen if len(chosen) else rng.choice(candidates, 1)
        kind = rng.random(len(chosen))
    else:
        chosen = _choose_groups(candidates, groups_L, share, rng)
        _, group = np.unique(groups_L[chosen], return_inverse=True)
        kind = rng.random(len(chosen))[group]
    labels = np.full_like(ids, IGNORE)
    labels[chosen] = ids[chosen]
    ids[chosen[kind < 0.8]] = mask
    replaced = chosen[(kind >= 0.8) & (kind < 0.9)]
    ids[replaced] = _random_words(len(replaced), special, vocabulary, rng)
    return torch.from_numpy(ids), torch.from_numpy(labels)


def _choose_groups(
    candidates: np.ndarray, groups_L: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Positions of whole groups, drawn until there is no room for a further one; the first always
    has (whole-word masking)."""
    numbers, counts = np.unique(groups_L[candidates], return_counts=True)
    order = rng.permutation(len(numbers))
    total = counts[order].cumsum()
    budget = max(round(share * len(candidates)), total[0])
    return candidates[np.isin(groups_L[candidates], numbers[order[total <= budget]])]


def _random_words(
    count: int, special: frozenset[int], vocabulary: int, rng: np.random.Generator
) -> np.ndarray:
    """`count` ids that are not special, wherever in the vocabulary those stand."""
    words = rng.integers(0, vocabulary - len(special), count)
    for token in sorted(special):
        words += words >= token
    return words


def mask_frames(
    length: int, rng: np.random.Generator, share: float = FRAME_SHARE, span: int = FRAME_SPAN
) -> Tensor:
    """[length] bool: each frame begins a masked span with probability `share`; spans may overlap;
    at least one begins.

    Where a recording is not longer than a span, half of it is masked, so that something is left to
    predict from.
    """
    span = max(1, min(span, length // 2))
    starts = np.flatnonzero(rng.random(length) < share)
    if not len(starts):
        starts = rng.integers(0, max(length - span, 0) + 1, 1)
    masked = np.zeros(length, dtype=bool)
    for start in starts:
        masked[start : start + span] = True
    if masked.all() and length > 1:
        masked[rng.integers(0, length)] = False
    return torch.from_numpy(masked)


def mask_squares(side: int, share: float, block: int, rng: np.random.Generator) -> Tensor:
    """[side²] bool: as many of a picture's patches in every draw, never all or none (SimMIM section
    3.1, MAE section 3).

    They are hidden in squares of `block` × `block`, of which `share` is drawn. `side`: a multiple
    of `block`, and not the same.
    """
    squares = (side // block) ** 2
    hidden = np.zeros(squares, dtype=bool)
    hidden[rng.permutation(squares)[: min(max(round(share * squares), 1), squares - 1)]] = True
    square = hidden.reshape(side // block, side // block)
    return torch.from_numpy(square.repeat(block, 0).repeat(block, 1).reshape(-1))

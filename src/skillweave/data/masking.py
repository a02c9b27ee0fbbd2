"""Which tokens, frames and patches pretraining masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import IGNORE
from skillweave.data.processors.base import BadInput

MASK_RATIO = 0.15
"""Share of tokens to predict (SkillNet section 4.2, BERT)."""
FRAME_SHARE = 0.05
"""Share of frames that begin a masked span (SkillNet section 4.2)."""
FRAME_SPAN = 10
"""Frames in a masked span (SkillNet section 4.2, wav2vec 2.0)."""


def mask_tokens(
    ids_L: Tensor,
    special: frozenset[int],
    mask: int,
    vocabulary: int,
    rng: np.random.Generator,
    share: float = MASK_RATIO,
    groups_L: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """BERT's masking: of `share` of the tokens 80 % become `mask`, 10 % a random token, 10 % stay.

    `special`: ids that are never chosen. At least one other token is chosen. `groups_L`: the number
    of the word or span of each position; a group is chosen as a whole, and all its tokens are
    treated alike. Returns ids [L] and labels [L], IGNORE where nothing is predicted. Raises
    BadInput when all tokens are special (a text of unknown characters).
    """
    ids = ids_L.numpy().copy()
    candidates = np.flatnonzero(~np.isin(ids, list(special)))
    if not len(candidates):
        raise BadInput("nothing but special tokens to mask")
    if groups_L is None:
        chosen = candidates[rng.random(len(candidates)) < share]
        chosen = chosen if len(chosen) else rng.choice(candidates, 1)
        fate = rng.random(len(chosen))
    else:
        chosen = _choose_groups(candidates, groups_L, share, rng)
        _, group = np.unique(groups_L[chosen], return_inverse=True)
        fate = rng.random(len(chosen))[group]
    labels = np.full_like(ids, IGNORE)
    labels[chosen] = ids[chosen]
    ids[chosen[fate < 0.8]] = mask
    replaced = chosen[(fate >= 0.8) & (fate < 0.9)]
    ids[replaced] = _random_tokens(len(replaced), special, vocabulary, rng)
    return torch.from_numpy(ids), torch.from_numpy(labels)


def _choose_groups(
    candidates: np.ndarray, groups_L: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """The positions of whole groups, drawn until the next does not fit. The first always fits."""
    numbers, counts = np.unique(groups_L[candidates], return_counts=True)
    order = rng.permutation(len(numbers))
    total = counts[order].cumsum()
    budget = max(round(share * len(candidates)), total[0])
    return candidates[np.isin(groups_L[candidates], numbers[order[total <= budget]])]


def _random_tokens(
    count: int, special: frozenset[int], vocabulary: int, rng: np.random.Generator
) -> np.ndarray:
    """`count` ids that are not special."""
    ids = rng.integers(0, vocabulary - len(special), count)
    for token in sorted(special):
        ids += ids >= token
    return ids


def mask_frames(length: int, rng: np.random.Generator) -> Tensor:
    """[length] bool: each frame begins a masked span with probability `FRAME_SHARE`. Spans may
    overlap; at least one begins.

    A recording that is not longer than a span is masked by half, so that the other half remains to
    predict from.
    """
    span = max(1, min(FRAME_SPAN, length // 2))
    starts = np.flatnonzero(rng.random(length) < FRAME_SHARE)
    if not len(starts):
        starts = rng.integers(0, max(length - span, 0) + 1, 1)
    masked = np.zeros(length, dtype=bool)
    for start in starts:
        masked[start : start + span] = True
    if masked.all() and length > 1:
        masked[rng.integers(0, length)] = False
    return torch.from_numpy(masked)


def mask_patches(side: int, share: float, block: int, rng: np.random.Generator) -> Tensor:
    """[side²] bool: the masked patches of an image, the same number in every draw, never all or
    none (SimMIM section 3.1, MAE section 3).

    `share` of the squares of `block` × `block` patches is masked. `side`: a multiple of `block`,
    and larger.
    """
    squares = (side // block) ** 2
    masked = np.zeros(squares, dtype=bool)
    masked[rng.permutation(squares)[: min(max(round(share * squares), 1), squares - 1)]] = True
    square = masked.reshape(side // block, side // block)
    return torch.from_numpy(square.repeat(block, 0).repeat(block, 1).reshape(-1))

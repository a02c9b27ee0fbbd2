"""Corruption of texts that a model learns to restore: text infilling (BART; M6's denoising), gap
sentences (Pegasus) and span corruption (T5)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

SpanLength = Literal["poisson", "geometric", "fixed"]
"""Distribution of the lengths of spans: see `MaskingConfig.span_length`."""
INFILLING_RATIO, INFILLING_MEAN = 0.3, 3.0
"""Share of tokens that masks replace (BART section 4.1), and the mean of the Poisson distribution
of span lengths (section 2.2)."""
DENOISING_RATIO = 0.15
"""Share of tokens that masks replace in M6 (section 3.3)."""
GAP_SENTENCES_RATIO = 0.3
"""Share of sentences that are gap sentences (Pegasus section 6.1)."""
NOISE_DENSITY, MEAN_SPAN_LENGTH = 0.15, 3.0
"""Share of tokens in corrupted spans, and the mean length of these (T5 section 3.1.4, 3.3.4)."""
_SENTENCE = re.compile(r"[^。！？!?.\n]*[。！？!?.\n]+[”’\"')」』]*|[^。！？!?.\n]+")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order, each with its closing marks, without blank ones."""
    return [part for part in _SENTENCE.findall(text) if part.strip()]


def draw_length(distribution: SpanLength, mean: float, rng: np.random.Generator) -> int:
    """The length of a span. `mean`: at least 1."""
    match distribution:
        case "poisson":
            return int(rng.poisson(mean))
        case "geometric":
            return int(rng.geometric(1 / mean))
        case "fixed":
            return round(mean)


def infill_text(
    tokens: Sequence[int],
    mask: int,
    rng: np.random.Generator,
    ratio: float = INFILLING_RATIO,
    span_length: SpanLength = "poisson",
    mean: float = INFILLING_MEAN,
) -> list[int]:
    """Tokens of which random spans are replaced by one `mask` each (BART section 2.2). A span of
    length 0 inserts a mask.

    `ratio`: share of tokens that is replaced; at least one is. `span_length`, `mean`: see
    `draw_length`.
    """
    count = len(tokens)
    budget = max(round(ratio * count), min(count, 1))
    removed = np.zeros(count, dtype=bool)
    masks: set[int] = set()
    for _ in range(4 * count):
        if removed.sum() >= budget:
            break
        length = min(draw_length(span_length, mean, rng), budget - int(removed.sum()))
        start = int(rng.integers(count - length + 1))
        # spans do not touch, otherwise two would be one
        around = removed[max(start - 1, 0) : start + length + 1]
        if around.any() or start in masks:
            continue
        removed[start : start + length] = True
        masks.add(start)
    result = []
    for i, token in enumerate(tokens):
        if i in masks:
            result.append(mask)
        if not removed[i]:
            result.append(token)
    return [*result, mask] if count in masks else result


def corrupt_spans(
    tokens: Sequence[int],
    rng: np.random.Generator,
    density: float = NOISE_DENSITY,
    mean: float = MEAN_SPAN_LENGTH,
) -> tuple[list[list[int]], list[list[int]]]:
    """Two or more tokens as alternating spans that are kept and removed: kept, removed, kept,
    removed, ... (T5).

    `density`: share of tokens in removed spans. `mean`: of the lengths of these. Returns the kept
    and the removed spans, as many of each. Every span has a token.
    """
    removed = min(max(round(density * len(tokens)), 1), len(tokens) - 1)
    count = min(max(round(removed / mean), 1), len(tokens) - removed)
    kept_lengths = _random_lengths(len(tokens) - removed, count, rng)
    removed_lengths = _random_lengths(removed, count, rng)
    lengths = np.stack([kept_lengths, removed_lengths], axis=1).ravel()
    spans = np.split(np.asarray(tokens), np.cumsum(lengths)[:-1])
    parts = [span.tolist() for span in spans]
    return parts[::2], parts[1::2]


def _random_lengths(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` lengths of at least 1 whose sum is `total`. All such sequences are equally likely."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def gap_sentences(
    sentences: Sequence[Sequence[int]], ratio: float = GAP_SENTENCES_RATIO
) -> list[int]:
    """The indices of the gap sentences: those most similar to the rest, by the F1 of their tokens,
    each on its own (Pegasus).

    There is at least one, and never all. `sentences`: the tokens of two or more sentences. `ratio`:
    share of sentences that are gap sentences.
    """
    counts = [Counter(tokens) for tokens in sentences]
    whole = sum(counts, Counter())

    def similarity(index: int) -> float:
        own, rest = counts[index], whole - counts[index]
        return 2 * (own & rest).total() / max(own.total() + rest.total(), 1)

    count = min(max(round(ratio * len(sentences)), 1), len(sentences) - 1)
    best = sorted(range(len(sentences)), key=lambda i: (-similarity(i), i))
    return sorted(best[:count])

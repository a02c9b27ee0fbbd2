"""BLEU and chrF as sacrebleu has them, from its counts of each sample, so that resamples [.., N]
are measured too; from 0 to 1.

Its methods that count and that make a score of summed counts bear an underscore: they are what its
own bootstrap uses, and it has no others. The tests hold the whole against `corpus_score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from skillweave.metrics.base import Floats


@cache
def _metric(name: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU  # only where texts are measured
    from sacrebleu.metrics.chrf import CHRF

    return {"bleu": BLEU(tokenize="zh", force=True), "chrf": CHRF()}[name]


def counts(name: str, references: Sequence[str], hypotheses: Sequence[str]) -> list[Floats]:
    """What sacrebleu counts of each sample, a column [N] for each of its numbers. `name`: `bleu` or
    `chrf`."""
    return list(
        np.array(_metric(name)._extract_corpus_statistics(hypotheses, [references]), float).T
    )


def score(name: str, *columns: Floats) -> Floats:
    """BLEU of words and Chinese characters, or chrF2 of characters, of all samples of each row."""
    sums = np.stack([column.sum(-1) for column in columns], -1)
    found = [
        _metric(name)._compute_score_from_stats(row.astype(int).tolist()).score
        for row in sums.reshape(-1, sums.shape[-1])
    ]
    return np.reshape(found, sums.shape[:-1]) / 100

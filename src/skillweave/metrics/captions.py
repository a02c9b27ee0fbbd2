"""BLEU-4, ROUGE-L and CIDEr of texts with several references each, as the COCO caption evaluation
defines them (arXiv 1504.00325).

Texts are compared as lowercase words and single Chinese characters, without punctuation. COCO's own
tokenizer (PTBTokenizer, in Java) knows no Chinese, and splits contractions otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from skillweave.metrics.base import Floats, MetricError, mean

ORDER = 4
"""Longest n-grams."""
BETA = 1.2
"""Weight of recall against precision in ROUGE-L."""
SIGMA = 6.0
"""CIDEr: standard deviation of the penalty for another length, in words."""


def caption_words(text: str) -> list[str]:
    """Lowercase words and Chinese characters, without punctuation."""
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    tokens = TokenizerZh()(text.lower()).split()
    return [token for token in tokens if any(character.isalnum() for character in token)]


def of_texts(
    metric: Callable[[Sequence[str], Sequence[Sequence[str]]], tuple[Any, list[Any]]],
) -> Callable[[Any], tuple[Any, list[Any]]]:
    """A metric of texts and the references of each, from predictions with `hypotheses` [N],
    `all_references` [N] of any number, and `inputs` [N].

    Samples with the same input, such as the rows of an image with several captions, are one, with
    all their references. Raises MetricError for predictions of another kind.
    """

    def compute(found: Any) -> tuple[Any, list[Any]]:
        if not hasattr(found, "all_references"):
            raise MetricError("bleu_4, rouge_l and cider are metrics of tasks that write texts")
        written: dict[str, str] = {}
        references: dict[str, dict[str, None]] = {}
        for name, text, own in zip(
            found.inputs, found.hypotheses, found.all_references, strict=True
        ):
            written.setdefault(name, text)
            references.setdefault(name, {}).update(dict.fromkeys(own))
        return metric([*written.values()], [[*own] for own in references.values()])

    return compute


def bleu_4(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Any, list[Any]]:
    """BLEU of n-grams up to 4, without smoothing, against the closest reference length (Papineni
    2002): the statistic, and sacrebleu's counts of each sample."""
    most = max(map(len, references), default=0)
    streams = [
        [_joined(own[i]) if i < len(own) else None for own in references] for i in range(most)
    ]
    counts = _bleu()._extract_corpus_statistics(list(map(_joined, hypotheses)), streams)
    return _bleu_of_counts, list(np.array(counts, float).T)


def _joined(text: str) -> str:
    return " ".join(caption_words(text))


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="none", smooth_method="none", force=True)


def _bleu_of_counts(*columns: Floats) -> Floats:
    sums = np.stack([column.sum(-1) for column in columns], -1)
    rows = sums.reshape(-1, sums.shape[-1]).astype(int).tolist()
    found = [_bleu()._compute_score_from_stats(row).score for row in rows]
    return np.reshape(found, sums.shape[:-1]) / 100


def rouge_l(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[Any, list[Any]]:
    """The mean over samples of the F measure of the longest common subsequence, with the best
    precision and the best recall of any reference (Lin 2004, as in COCO)."""
    pairs = zip(hypotheses, references, strict=True)
    return mean, [np.array([_rouge_l(text, own) for text, own in pairs])]


def _rouge_l(text: str, references: Sequence[str]) -> float:
    from rapidfuzz.distance import LCSseq

    words = caption_words(text)
    others = [own for reference in references if (own := caption_words(reference))]
    common = [LCSseq.similarity(words, own) for own in others]
    if not any(common):
        return 0.0
    precision = max(common) / len(words)
    recall = max(count / len(own) for count, own in zip(common, others, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Any, list[Any]]:
    """The mean over samples of CIDEr-D (Vedantam 2015), which is 10 for the reference itself where
    all n-grams are rare.

    It weights an n-gram by the share of samples in whose references it occurs, so it needs several
    samples; of a single one it is 0.
    """
    cooked = [[_ngrams(reference) for reference in own] for own in references]
    frequency = Counter(ngram for own in cooked for ngram in set().union(*own))
    samples = math.log(len(references)) if references else 0.0

    def weighted(counts: Counter[tuple[str, ...]]) -> list[dict[tuple[str, ...], float]]:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(ORDER)]
        for ngram, count in counts.items():
            rarity = samples - math.log(max(1, frequency[ngram]))
            vectors[len(ngram) - 1][ngram] = count * rarity
        return vectors

    def similarity(text: str, own: Sequence[Counter[tuple[str, ...]]]) -> float:
        counts = _ngrams(text)
        theirs = [_cosine(weighted(counts), weighted(one)) * _penalty(counts, one) for one in own]
        return 10 * sum(theirs) / len(theirs)

    pairs = zip(hypotheses, cooked, strict=True)
    return mean, [np.array([similarity(text, own) for text, own in pairs])]


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = caption_words(text)
    return Counter(
        tuple(words[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(words) - n + 1)
    )


def _cosine(
    text: list[dict[tuple[str, ...], float]], reference: list[dict[tuple[str, ...], float]]
) -> float:
    """The mean over n of the cosine, in which a text has no n-gram more often than the
    reference."""
    total = 0.0
    for ours, theirs in zip(text, reference, strict=True):
        norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
        shared = ours.keys() & theirs.keys()
        if norms:
            total += sum(min(ours[one], theirs[one]) * theirs[one] for one in shared) / norms
    return total / ORDER


def _penalty(text: Counter[tuple[str, ...]], reference: Counter[tuple[str, ...]]) -> float:
    ours, theirs = (sum(n for ngram, n in c.items() if len(ngram) == 1) for c in (text, reference))
    return math.exp(-((ours - theirs) ** 2) / (2 * SIGMA**2))

"""Prefix beam search against all alignments there are, with and without a language model; and the
model by hand."""

import math
from collections import defaultdict
from itertools import groupby, product

import pytest
import torch

from skillweave.generation.ctc import prefix_beam_search
from skillweave.generation.ngram import NGram

FRAMES, CLASSES = 5, 3


def by_brute_force(
    frames: torch.Tensor, language: NGram | None, weight: float, bonus: float
) -> list[int]:
    """The sum over all alignments of every text, with the language model's and the characters'
    share."""
    chances: dict[tuple[int, ...], float] = defaultdict(float)
    for path in product(range(frames.shape[1]), repeat=len(frames)):
        text = tuple(number for number, _ in groupby(path) if number)
        chances[text] += math.exp(sum(float(frames[i, number]) for i, number in enumerate(path)))

    def score(text: tuple[int, ...]) -> float:
        prior = (
            sum(language(text[:i], unit) for i, unit in enumerate((*text, 0))) if language else 0.0
        )
        return math.log(chances[text]) + weight * prior + bonus * len(text)

    return list(max(chances, key=score))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("weight", "bonus"), [(0.0, 0.0), (0.0, 0.4), (0.7, 0.0), (1.5, 1.0)])
def test_wide_beams_find_the_best_of_all_texts(seed: int, weight: float, bonus: float) -> None:
    frames = (
        torch.randn(FRAMES, CLASSES, generator=torch.Generator().manual_seed(seed))
        .double()
        .log_softmax(-1)
    )
    language = NGram([[1, 1, 2], [1, 2], [2]], 2, CLASSES) if weight else None
    found = prefix_beam_search(frames, 10_000, language, weight, bonus)
    assert found == by_brute_force(frames, language, weight, bonus)


def test_a_text_of_many_alignments_beats_the_best_single_one() -> None:
    """Greedy search takes two blanks, 0.36; "1" is spelt in three ways, together 0.64."""
    frames = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert prefix_beam_search(frames, 4) == [1]


def test_equal_neighbours_need_a_blank_between_them() -> None:
    sure = torch.tensor([[0.02, 0.98], [0.98, 0.02], [0.02, 0.98]]).log()
    assert prefix_beam_search(sure, 4) == [1, 1]
    assert prefix_beam_search(sure[[0, 2]], 4) == [1]


def test_a_language_model_decides_between_what_sounds_alike() -> None:
    frames = torch.tensor([[0.1, 0.8, 0.1], [0.05, 0.35, 0.6], [0.9, 0.05, 0.05]]).log()
    assert prefix_beam_search(frames, 8) == [1, 2]
    language = NGram([[1]] * 9 + [[2, 1]], 2, 3)
    assert prefix_beam_search(frames, 8, language, weight=1.0) == [1]


def test_ngrams_by_hand() -> None:
    """Two texts, "1 2" and "1": behind nothing 1, 2, end, 1, end were seen, which are 5 of 3
    kinds."""
    model = NGram([[1, 2], [1]], 2, units=4)
    assert model.probability([], 1) == pytest.approx((2 + 3 / 4) / 8)
    assert model.probability([], 3) == pytest.approx((0 + 3 / 4) / 8)
    assert model.probability([1], 2) == pytest.approx((1 + 2 * (1 + 3 / 4) / 8) / 4)
    # an unseen history tells nothing
    assert model.probability([3], 2) == pytest.approx((1 + 3 / 4) / 8)
    assert model.probability([2, 1], 2) == model.probability([1], 2)
    for history in ([], [1], [2], [3]):
        assert sum(model.probability(history, unit) for unit in range(4)) == pytest.approx(1)

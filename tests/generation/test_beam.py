"""Beam search against all answers that there are."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from skillweave.generation import beam_search

END, WORDS, MOST = 0, 4, 4


def language(seed: int) -> Tensor:
    """[W, W] the logarithm of each word's probability after each other one."""
    return (
        torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(seed))
        .mul(2)
        .log_softmax(-1)
    )


def all_answers() -> Iterator[tuple[int, ...]]:
    """Every answer of at most so many words: those that end, and those that are cut."""
    for length in range(MOST):
        yield from ((*words, END) for words in product(range(1, WORDS), repeat=length))
    yield from product(range(1, WORDS), repeat=MOST)


def likelihood(table: Tensor, begin: int, words: tuple[int, ...], penalty: float) -> float:
    steps = zip((begin, *words), words, strict=False)
    return sum(float(table[before, word]) for before, word in steps) / len(words) ** penalty


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(8))
def test_wide_beams_find_the_best_of_all_answers(seed: int, penalty: float) -> None:
    table, begins = language(seed), torch.tensor([[1], [2], [3]])
    found = beam_search(
        table[begins[:, 0]],
        lambda tokens, before: table[tokens],
        [END],
        MOST,
        beams=WORDS**MOST,
        length_penalty=penalty,
        early_stopping="never",
    )
    for begin, words in zip(begins[:, 0].tolist(), found, strict=True):
        best = max(all_answers(), key=lambda words: likelihood(table, begin, words, penalty))
        assert words[0].ids == [word for word in best if word != END]
        assert words[0].score == pytest.approx(likelihood(table, begin, best, penalty))


def test_words_that_may_not_follow() -> None:
    # 1 is followed by 2 or 3, 2 by the end, 3 by nothing
    table, no = torch.full((4, 4), -torch.inf), -torch.inf
    table[1, 2], table[1, 3], table[2, END] = -2.0, -0.5, -0.25
    steps = []

    def step(tokens: Tensor, before: Tensor) -> Tensor:
        steps.append(tokens)
        return table[tokens]

    one, none = beam_search(table[[1, 3]], step, [END], 50, beams=3, best=3)
    assert [(answer.ids, answer.score) for answer in one] == [([2], pytest.approx(-2.25 / 2))]
    assert [answer.score for answer in none] == [no]
    assert len(steps) == 1  # the search ends with its last beam


def test_scores_that_are_no_numbers() -> None:
    nowhere = torch.full((2, WORDS), torch.nan)
    found = beam_search(nowhere, lambda tokens, before: nowhere[:1].expand(4, -1), [END], 5, 2)
    assert [len(answers) for answers in found] == [1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy(seed: int) -> None:
    table, begins = language(seed), torch.tensor([[1], [2], [3]])
    found = beam_search(table[begins[:, 0]], lambda tokens, before: table[tokens], [END], 6)
    for begin, words in zip(begins[:, 0].tolist(), found, strict=True):
        expected = [int(table[begin].argmax())]
        while len(expected) < 6 and expected[-1] != END:
            expected.append(int(table[expected[-1]].argmax()))
        assert words[0].ids == [word for word in expected if word != END]

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


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy(seed: int) -> None:
    table, begins = language(seed), torch.tensor([[1], [2], [3]])
    found = beam_search(table[begins[:, 0]], lambda tokens, before: table[tokens], [END], 6)
    for begin, words in zip(begins[:, 0].tolist(), found, strict=True):
        expected = [int(table[begin].argmax())]
        while len(expected) < 6 and expected[-1] != END:
            expected.append(int(table[expected[-1]].argmax()))
        assert words[0].ids == [word for word in expected if word != END]

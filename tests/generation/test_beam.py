"""Beam search against all answers that there are."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from skillweave.generation import Search, beam_search

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
        Search([END], MOST, penalty, "never"),
        beams=WORDS**MOST,
    )
    for begin, words in zip(begins[:, 0].tolist(), found, strict=True):
        best = max(all_answers(), key=lambda words: likelihood(table, begin, words, penalty))
        assert words[0].ids == [word for word in best if word != END]
        assert words[0].score == pytest.approx(likelihood(table, begin, best, penalty))


@pytest.mark.parametrize(
    ("seed", "penalty", "beams"), [(9, -0.5, 3), (46, -1.0, 2), (46, -2.0, 3), (71, -1.0, 2)]
)
def test_a_power_that_prefers_short_answers_ends_no_search_too_early(
    seed: int, penalty: float, beams: int
) -> None:
    table, begins = (2 * language(seed)).log_softmax(-1), torch.tensor([1, 2, 3])
    search = Search([END], MOST, penalty, "never")
    found = beam_search(table[begins], lambda tokens, before: table[tokens], search, beams, beams)
    for begin, answers in zip(begins.tolist(), found, strict=True):
        scores = sorted(likelihood(table, begin, words, penalty) for words in all_answers())
        best = scores[: -beams - 1 : -1]
        assert [answer.score for answer in answers] == pytest.approx(best, abs=1e-4)


def test_words_that_may_not_follow() -> None:
    # 1 is followed by 2 or 3, 2 by the end, 3 by nothing
    table, no = torch.full((4, 4), -torch.inf), -torch.inf
    table[1, 2], table[1, 3], table[2, END] = -2.0, -0.5, -0.25
    steps = []

    def step(tokens: Tensor, before: Tensor) -> Tensor:
        steps.append(tokens)
        return table[tokens]

    one, none = beam_search(table[[1, 3]], step, Search([END], 50), beams=3, best=3)
    assert [(answer.ids, answer.score) for answer in one] == [([2], pytest.approx(-2.25 / 2))]
    assert [answer.score for answer in none] == [no]
    assert len(steps) == 1  # the search ends with its last beam


def test_scores_that_are_no_numbers() -> None:
    nowhere = torch.full((2, WORDS), torch.nan)
    found = beam_search(
        nowhere, lambda tokens, before: nowhere[:1].expand(4, -1), Search([END], 5), 2
    )
    assert [len(answers) for answers in found] == [1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy(seed: int) -> None:
    table, begins = language(seed), torch.tensor([[1], [2], [3]])
    found = beam_search(table[begins[:, 0]], lambda tokens, before: table[tokens], Search([END], 6))
    for begin, words in zip(begins[:, 0].tolist(), found, strict=True):
        expected = [int(table[begin].argmax())]
        while len(expected) < 6 and expected[-1] != END:
            expected.append(int(table[expected[-1]].argmax()))
        assert words[0].ids == [word for word in expected if word != END]


def diverse(
    tables: list[Tensor], begin: int, groups: int, beams: int, penalty: float
) -> list[tuple[tuple[int, ...], float]]:
    """Algorithm 1 of arXiv 1610.02424 in plain loops, for answers of exactly MOST words: the words
    and the sum of each beam. `tables`: the language at each place."""
    found: list[list[tuple[tuple[int, ...], float]]] = [[((), 0.0)] for _ in range(groups)]
    for table in tables:
        taken: list[int] = []
        for g in range(groups):
            longer = []
            for words, total in found[g]:
                last = words[-1] if words else begin
                for word in range(1, WORDS):
                    score = float(table[last, word]) - penalty * taken.count(word)
                    longer.append(((*words, word), total + score))
            found[g] = sorted(longer, key=lambda one: -one[1])[:beams]
            taken += [words[-1] for words, _ in found[g]]
    return sorted((one for group in found for one in group), key=lambda one: -one[1])


@pytest.mark.parametrize("penalty", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(("groups", "beams"), [(1, 2), (2, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_groups_avoid_the_words_of_others(
    seed: int, groups: int, beams: int, penalty: float
) -> None:
    tables, begins = [language(seed + 10 * place) for place in range(MOST)], torch.tensor([1, 2, 3])
    for table in tables:
        table[:, END] = -torch.inf
    rest = iter(tables)
    found = beam_search(
        next(rest)[begins],
        lambda tokens, before: next(rest)[tokens],
        Search([END], MOST),
        beams=groups * beams,
        best=groups * beams,
        groups=groups,
        diversity_penalty=penalty,
    )
    for begin, answers in zip(begins.tolist(), found, strict=True):
        expected = diverse(tables, begin, groups, beams, penalty)
        scores = pytest.approx([total / MOST for _, total in expected], abs=1e-5)
        assert [answer.score for answer in answers] == scores
        assert sorted(tuple(answer.ids) for answer in answers) == sorted(ids for ids, _ in expected)

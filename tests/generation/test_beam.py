"""Beam search against all answers that there are, and against Hugging Face's on a random BART."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from hf_generation import BART
from hf_references import Reference, make_batch, true_tokens
from torch import Tensor
from transformers import GenerationConfig

from skillweave.generation import beam_search, generate
from skillweave.interop.huggingface import from_hf, to_hf

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
        END,
        MOST,
        beams=WORDS**MOST,
        length_penalty=penalty,
        early_stopping="never",
    )
    for begin, words in zip(begins[:, 0].tolist(), found, strict=True):
        best = max(all_answers(), key=lambda words: likelihood(table, begin, words, penalty))
        assert words == [word for word in best if word != END]


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy(seed: int) -> None:
    table, begins = language(seed), torch.tensor([[1], [2], [3]])
    found = beam_search(table[begins[:, 0]], lambda tokens, before: table[tokens], END, 6)
    for begin, words in zip(begins[:, 0].tolist(), found, strict=True):
        expected = [int(table[begin].argmax())]
        while len(expected) < 6 and expected[-1] != END:
            expected.append(int(table[expected[-1]].argmax()))
        assert words == [word for word in expected if word != END]


@pytest.mark.parametrize(
    ("beams", "penalty", "early_stopping"),
    [
        (1, 1.0, False),
        *(
            (beams, penalty, early)
            for beams, penalty in [(2, 1.0), (3, 1.0), (5, 0.5), (4, 2.0)]
            for early in (False, True, "never")
        ),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_as_hugging_face(beams: int, penalty: float, early_stopping: Any, seed: int) -> None:
    theirs: Any = Reference("BartForConditionalGeneration", "BartConfig", BART).build()
    torch.manual_seed(seed)
    # else one word follows itself for ever
    theirs.model.decoder.embed_positions.weight.data.normal_(0, 10)
    theirs.final_logits_bias[0, BART["eos_token_id"]] += 3
    model = from_hf(theirs)
    batch = make_batch(model, torch.float64)
    expected = theirs.generate(
        batch.inputs[0],
        attention_mask=true_tokens(batch, 0).long(),
        num_beams=beams,
        length_penalty=penalty,
        early_stopping=early_stopping,
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=BART["eos_token_id"],
        bos_token_id=None,
        forced_bos_token_id=None,
    )
    begin, end = BART["decoder_start_token_id"], BART["eos_token_id"]
    first = torch.full((len(batch), 1), begin)
    found = generate(
        model, batch, first, end, 8, beams, penalty, {"early_stopping": early_stopping}
    )
    for words, row in zip(found, expected.tolist(), strict=True):
        assert words == (row[1 : row.index(end, 1)] if end in row[1:] else row[1:])


RULES: list[dict[str, Any]] = [
    {"min_length": 6},
    {"min_new_tokens": 4, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.7},
    {"forced_bos_token_id": 0, "begin_suppress_tokens": [3, 4]},
    {"forced_eos_token_id": 2, "suppress_tokens": [5, 9]},
    {"bad_words_ids": [[7], [8, 9]], "renormalize_logits": True},
    {"early_stopping": True, "length_penalty": 2.0},
    {"length_penalty": 0.3},
]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("options", RULES, ids=["-".join(one) for one in RULES])
def test_options_of_hugging_face_are_followed(options: dict[str, Any], beams: int) -> None:
    """Those of a model's generation settings, after a conversion; and the same settings again after
    a conversion back."""
    for seed in range(2):
        theirs: Any = Reference("BartForConditionalGeneration", "BartConfig", BART).build()
        torch.manual_seed(seed)
        theirs.model.decoder.embed_positions.weight.data.normal_(0, 10)
        theirs.final_logits_bias[0, BART["eos_token_id"]] += 3
        settings = {"num_beams": beams, "max_length": 9, **options}
        theirs.generation_config = GenerationConfig(**theirs.generation_config.to_dict() | settings)
        model = from_hf(theirs)
        batch = make_batch(model, torch.float64)
        given = (batch.inputs[0], true_tokens(batch, 0).long())
        expected = theirs.generate(given[0], attention_mask=given[1])
        target = model.config.targets["lm"]
        begin_NL = torch.full((len(batch), 1), BART["decoder_start_token_id"])
        most, penalty, more = target.max_answer_tokens, target.length_penalty, target.generation
        found = generate(model, batch, begin_NL, 2, most, target.beams, penalty, more)
        assert found == [[i for i in row[1:] if i not in (1, 2)] for row in expected.tolist()]
        assert to_hf(model).generate(given[0], attention_mask=given[1]).equal(expected)

"""Contrastive search against the paper's formula over whole passes of Transformers' models.

Transformers no longer has this search itself.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hf_answers import END, bart, gpt2, llama
from hf_generation import BART
from hf_references import make_batch, true_tokens
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.config.decoding import DecodingConfig
from skillweave.generation import answered, generate
from skillweave.interop.huggingface import from_hf
from skillweave.model.model import Model

MOST = 8


def outputs(theirs: Any, text: list[int], source: Tensor | None) -> tuple[Tensor, Tensor]:
    """[L, V] logits and [L, D] last hidden states of a text, without a cache."""
    ids = torch.tensor([text])
    if source is None:
        found = theirs(ids, output_hidden_states=True)
        return found.logits[0], found.hidden_states[-1][0]
    found = theirs(source[None], decoder_input_ids=ids, output_hidden_states=True)
    return found.logits[0], found.decoder_hidden_states[-1][0]


@torch.no_grad()
def searched(
    theirs: Any, text: list[int], source: Tensor | None, alpha: float, k: int, penalty: float
) -> list[int]:
    """Equation 5 of arXiv 2202.06417, token for token. `penalty`: for repetitions."""
    given = len(text)
    while len(text) < given + MOST:
        logits, hidden = outputs(theirs, text, source)
        scores = logits[-1].float()
        for token in set(text):
            scores[token] *= penalty if scores[token] < 0 else 1 / penalty
        probabilities = scores.softmax(-1)
        values = {}
        for token in probabilities.topk(k).indices.tolist():
            new = outputs(theirs, [*text, token], source)[1][-1]
            alike = max(float(F.cosine_similarity(new, one, dim=0)) for one in hidden)
            values[token] = (1 - alpha) * float(probabilities[token]) - alpha * alike
        best = max(values, key=lambda token: values[token])
        if best == END:
            break
        text = [*text, best]
    return text[given:]


def inputs_of(model: Model) -> tuple[Any, list[list[int]], list[Tensor | None]]:
    """A batch of unequal lengths, and for each sample the text that goes on and its source."""
    decoder = model.config.decoder is not None
    batch = make_batch(model, torch.float64, (5, 8, 6))
    rows = zip(batch.inputs[0], true_tokens(batch, 0), strict=True)
    given = [row[valid] for row, valid in rows]
    if not decoder:
        return batch, [row.tolist() for row in given], [None] * len(given)
    start = BART["decoder_start_token_id"]
    return answered(batch, torch.full((3, 1), start)), [[start]] * len(given), [*given]


@pytest.mark.parametrize(
    ("alpha", "k", "penalty"), [(0.6, 4, 1.0), (0.9, 2, 1.0), (0.3, 6, 1.0), (0.6, 4, 1.7)]
)
@pytest.mark.parametrize("build", [bart, llama, gpt2])
def test_texts_are_those_of_the_formula(build: Any, alpha: float, k: int, penalty: float) -> None:
    for seed in range(2):
        theirs = build(seed)
        model = from_hf(theirs)
        batch, texts, sources = inputs_of(model)
        expected = [
            searched(theirs, text, source, alpha, k, penalty)
            for text, source in zip(texts, sources, strict=True)
        ]
        settings = DecodingConfig(penalty_alpha=alpha, top_k=k, repetition_penalty=penalty)
        found = [row[0] for row in generate(model, batch, [END], MOST, settings)]
        assert [one.ids for one in found] == expected
        plain = [row[0].ids for row in generate(model, batch, [END], MOST)]
        assert plain != expected or build is bart or alpha < 0.5  # the search changes texts


def test_tokens_that_are_excluded_are_never_chosen() -> None:
    model = from_hf(llama(0))
    batch = make_batch(model, torch.float64, (6, 6))
    every = range(3, int(model.config.streams.text.vocabulary))
    settings = DecodingConfig(
        penalty_alpha=1.0, top_k=5, suppress_tokens=[0, 1, *every], min_new_tokens=0
    )
    assert [row[0].ids for row in generate(model, batch, [END], MOST, settings)] == [[], []]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "set top_k, such as 4"),
        ({"top_k": 4, "num_beams": 2}, "num_beams and num_return_sequences at 1"),
        ({"top_k": 4, "do_sample": True}, "leave do_sample out"),
        ({"top_k": 4, "prompt_lookup_num_tokens": 2}, "exclude each other"),
        ({"top_k": 4, "top_p": 0.5}, "top_p matters only where tokens are drawn"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        DecodingConfig.parse({"penalty_alpha": 0.6, **settings})


@pytest.mark.parametrize(
    ("saved", "given", "alpha", "count"),
    [
        ({"penalty_alpha": 0.6, "top_k": 4}, {}, 0.6, 4),
        ({"penalty_alpha": 0.6}, {}, 0.0, 0),
        ({"penalty_alpha": 0.6, "top_k": 1}, {}, 0.0, 0),
        ({"penalty_alpha": 0.6, "top_k": 4}, {"num_beams": 2}, 0.0, 0),
        ({"penalty_alpha": 0.6, "top_k": 4, "do_sample": True}, {}, 0.0, 0),
        ({"penalty_alpha": 0.6, "top_k": 4}, {"do_sample": True}, 0.0, 0),
        ({"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0}, 0.0, 0),
        ({"top_k": 50}, {"penalty_alpha": 0.5}, 0.5, 50),
        ({"top_k": 50}, {"penalty_alpha": 0.5, "top_k": 5}, 0.5, 5),
    ],
)
def test_options_of_a_model_choose_the_search_as_in_transformers(
    saved: dict[str, Any], given: dict[str, Any], alpha: float, count: int
) -> None:
    found = DecodingConfig.search(saved, **given)
    assert (found.penalty_alpha, found.top_k) == (alpha, count)

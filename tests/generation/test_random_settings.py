"""For random settings, the texts are those of Transformers' `generate`, token for token."""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest import mock

import torch
from hf_answers import END, answers, bart, gpt2, llama
from hf_references import make_batch, true_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skillweave.config.decoding import DecodingConfig
from skillweave.generation import answered, generate
from skillweave.generation.generate import draw
from skillweave.interop.huggingface import from_hf

MOST = 6
BUILDS = {"bart": bart, "gpt2": gpt2, "llama": llama}
TOKEN = st.integers(3, 30)
TOKENS = st.lists(TOKEN, min_size=1, max_size=3, unique=True)
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "min_new_tokens": st.integers(0, MOST),
    "min_length": st.integers(0, MOST + 6),
    "repetition_penalty": st.floats(0.6, 2),
    "no_repeat_ngram_size": st.integers(0, 3),
    "encoder_repetition_penalty": st.floats(0.6, 2),
    "encoder_no_repeat_ngram_size": st.integers(0, 3),
    "bad_words_ids": st.lists(TOKENS, min_size=1, max_size=3),
    "sequence_bias": st.lists(
        st.tuples(TOKENS, st.floats(-6, 6)).map(list), min_size=1, max_size=3
    ),
    "forced_eos_token_id": st.just(END),
    "exponential_decay_length_penalty": st.tuples(st.integers(0, 4), st.floats(0.7, 1.8)),
    "suppress_tokens": TOKENS,
    "begin_suppress_tokens": TOKENS,
    "renormalize_logits": st.booleans(),
}
BEAMS: dict[str, st.SearchStrategy[Any]] = {
    "length_penalty": st.floats(-1, 2),
    "early_stopping": st.sampled_from([False, True, "never"]),
}
CUTS: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0.3, 2),
    "top_k": st.integers(1, 12),
    "top_p": st.floats(0.1, 1),
    "min_p": st.floats(0, 0.5),
    "typical_p": st.floats(0.2, 1),
    "epsilon_cutoff": st.floats(0.01, 0.2),
    "eta_cutoff": st.floats(0.01, 0.5),
}


def some_of(options: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """At most three of the options, each with a value."""
    names = st.lists(st.sampled_from(sorted(options)), max_size=3, unique=True)
    return names.flatmap(lambda own: st.fixed_dictionaries({name: options[name] for name in own}))


@st.composite
def searches(draw_one: st.DrawFn) -> dict[str, Any]:
    """Settings of greedy search, of beams, or of samples."""
    found = draw_one(some_of(CHANGES))
    kind = draw_one(st.sampled_from(["greedy", "beams", "samples"]))
    if kind == "beams":
        beams = draw_one(st.integers(2, 4))
        best = draw_one(st.integers(1, beams))
        return found | draw_one(some_of(BEAMS)) | {"num_beams": beams, "num_return_sequences": best}
    if kind == "samples":
        own = draw_one(some_of(CUTS))
        return (
            found | own | {"do_sample": True, "num_return_sequences": draw_one(st.integers(1, 2))}
        )
    return found


@cache
def pair(name: str, seed: int) -> tuple[Any, Any]:
    theirs = BUILDS[name](seed)
    return theirs, from_hf(theirs)


def fixed_draws() -> Any:
    """Transformers draws with the numbers of seed 7, as `DecodingConfig(seed=7)` does."""
    generator = torch.Generator().manual_seed(7)

    def multinomial(probabilities: Tensor, num_samples: int) -> Tensor:
        return draw(probabilities, torch.rand(len(probabilities), generator=generator))[:, None]

    return mock.patch.object(torch, "multinomial", multinomial)


@settings(max_examples=60)
@given(st.sampled_from(sorted(BUILDS)), st.integers(0, 1), searches())
def test_texts_of_random_settings(name: str, seed: int, own: dict[str, Any]) -> None:
    theirs, model = pair(name, seed)
    decoder = model.config.decoder is not None
    batch = make_batch(model, torch.float64, (5, 8, 6) if decoder else (6, 6, 6))
    with fixed_draws():
        expected = theirs.generate(
            batch.inputs[0],
            attention_mask=true_tokens(batch, 0).long(),
            max_new_tokens=MOST,
            pad_token_id=END,
            eos_token_id=END,
            bos_token_id=None,
            forced_bos_token_id=None,
            **{"do_sample": False, "top_k": 0, **own},
        )
    if decoder:
        batch = answered(batch, expected[:1, :1].repeat(len(batch), 1))
    start = batch.inputs[-1].shape[1]
    ours = DecodingConfig.parse({**own, "seed": 7} if "do_sample" in own else own)
    found = generate(model, batch, [END], MOST, ours)
    assert [one.ids for row in found for one in row] == answers(expected, start)

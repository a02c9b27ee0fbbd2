"""The texts that a model writes are those of Transformers' `generate`, token for token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hf_answers import END, answers, bart, llama
from hf_generation import BART
from hf_references import make_batch, true_tokens
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.config.decoding import DecodingConfig
from skillweave.generation import Assistant, answered, generate, write
from skillweave.generation.drafts import looked_up
from skillweave.generation.generate import draw
from skillweave.interop.huggingface import from_hf
from skillweave.model.model import Model

MOST = 8
SEARCHES: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 5},
    {"min_length": 4},
    {"suppress_tokens": [5, 9, 30, 31, 32]},
    {"encoder_repetition_penalty": 3.0},
    {"encoder_no_repeat_ngram_size": 1},
    {"encoder_no_repeat_ngram_size": 2, "num_beams": 3},
    {"exponential_decay_length_penalty": (2, 1.4)},
    {"exponential_decay_length_penalty": (0, 1.2), "min_length": 9},
    {"sequence_bias": [[[5], 3.0], [[9, 12], 8.0], [[30], -4.0]]},
    {"forced_bos_token_id": 7, "begin_suppress_tokens": [3, 5, 9]},
    {"begin_suppress_tokens": [3, 5, 9, 30, 31, 32]},
    {"forced_eos_token_id": 2},
    {"num_beams": 3, "forced_eos_token_id": 2, "renormalize_logits": True},
    *(
        {"num_beams": beams, "length_penalty": penalty, "early_stopping": early}
        for beams, penalty in [(2, 1.0), (3, 1.0), (5, 0.5), (4, 2.0)]
        for early in (False, True, "never")
    ),
    {"num_beams": 4, "num_return_sequences": 3},
    {"num_beams": 3, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 3},
]
SAMPLES: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"top_k": 3},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"typical_p": 0.5},
    {"top_h": 0.5},
    {"top_h": 0.9, "temperature": 1.5, "top_k": 6},
    {"epsilon_cutoff": 0.05},
    {"eta_cutoff": 0.3},
    {"temperature": 1.5, "top_k": 6, "top_p": 0.9, "repetition_penalty": 1.4},
    {"num_return_sequences": 3},
]


def compare(theirs: Any, settings: dict[str, Any], **theirs_alone: Any) -> None:
    """On a batch; where prompts have unequal lengths, on each sample alone too."""
    model = from_hf(theirs)
    decoder = model.config.decoder is not None
    batch = make_batch(model, torch.float64, (5, 8, 6) if decoder else (6, 6, 6))
    options = {
        "max_new_tokens": MOST,
        "do_sample": False,
        "pad_token_id": END,
        "eos_token_id": END,
        "bos_token_id": None,
        "forced_bos_token_id": None,
        **settings,
        **theirs_alone,
    }
    mask = true_tokens(batch, 0).long()
    expected = theirs.generate(batch.inputs[0], attention_mask=mask, **options)
    if decoder:
        begin = torch.full((len(batch), 1), BART["decoder_start_token_id"])
        batch = answered(batch, begin)
    given = batch.inputs[-1].shape[1]
    found = generate(model, batch, [END], MOST, DecodingConfig.parse(settings))
    assert [one.ids for row in found for one in row] == answers(expected, given)


@pytest.mark.parametrize("settings", SEARCHES, ids=str)
@pytest.mark.parametrize("build", [bart, llama])
@pytest.mark.parametrize("seed", range(2))
def test_searches(build: Any, settings: dict[str, Any], seed: int) -> None:
    compare(build(seed), settings)


@pytest.mark.parametrize("build", [bart, llama])
def test_words_that_are_not_written(build: Any) -> None:
    theirs = build(0)
    model = from_hf(theirs)
    batch = make_batch(model, torch.float64, (6, 6, 6))
    begin = torch.full((3, 1), BART["decoder_start_token_id"])
    batch = answered(batch, begin) if model.config.decoder else batch
    free = generate(model, batch, [END], MOST)
    written = [row[0].ids for row in free if len(row[0].ids) > 1]
    words = [written[0][:1], written[-1][:2]]
    expected = theirs.generate(
        make_batch(model, torch.float64, (6, 6, 6)).inputs[0],
        max_new_tokens=MOST,
        do_sample=False,
        pad_token_id=END,
        eos_token_id=END,
        bad_words_ids=words,
        forced_bos_token_id=None,
    )
    found = generate(model, batch, [END], MOST, DecodingConfig(bad_words_ids=words))
    assert [row[0].ids for row in found] == answers(expected, batch.inputs[-1].shape[1])


@pytest.mark.parametrize("settings", SAMPLES, ids=str)
@pytest.mark.parametrize("build", [bart, llama])
def test_samples_are_drawn_from_the_same_distribution(
    build: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(7)

    def multinomial(probabilities: Tensor, num_samples: int) -> Tensor:
        return draw(probabilities, torch.rand(len(probabilities), generator=generator))[:, None]

    monkeypatch.setattr(torch, "multinomial", multinomial)
    compare_sampled(build(0), settings)


def compare_sampled(theirs: Any, settings: dict[str, Any]) -> None:
    every = {"do_sample": True, "top_k": 0, **settings}
    seeded = {"seed": 7, **every}
    model = from_hf(theirs)
    batch = make_batch(model, torch.float64, (6, 6, 6))
    expected = theirs.generate(
        batch.inputs[0],
        max_new_tokens=MOST,
        pad_token_id=END,
        eos_token_id=END,
        forced_bos_token_id=None,
        **every,
    )
    begin = torch.full((3, 1), BART["decoder_start_token_id"])
    batch = answered(batch, begin) if model.config.decoder else batch
    found = generate(model, batch, [END], MOST, DecodingConfig.parse(seeded))
    assert [one.ids for row in found for one in row] == answers(expected, batch.inputs[-1].shape[1])


def test_prompts_of_unequal_length_have_the_answers_that_they_have_alone() -> None:
    model = from_hf(llama(0))
    batch = make_batch(model, torch.float64, (3, 8, 5))
    settings = DecodingConfig(no_repeat_ngram_size=2, repetition_penalty=1.2)
    together = [row[0].ids for row in generate(model, batch, [END], MOST, settings)]
    for i, length in enumerate(batch.lengths[:, 0].tolist()):
        alone = replace(
            batch, inputs=(batch.inputs[0][i : i + 1],), lengths=batch.lengths[i : i + 1]
        )
        alone = answered(alone, alone.inputs[0][:, :length])
        assert [row[0].ids for row in generate(model, alone, [END], MOST, settings)] == [
            together[i]
        ]


def test_a_text_is_written_token_by_token() -> None:
    model = from_hf(llama(1))
    batch = make_batch(model, torch.float64, (6, 6))
    whole = generate(model, batch, [END], MOST)
    steps = list(write(model, batch, [END], MOST))
    for i, (answer,) in enumerate(whole):
        own = [step.tokens[i] for step in steps][: len(answer.ids)]
        assert own == answer.ids
        # until its end, a text goes on
        assert all(step.goes_on[i] for step in steps[: max(len(answer.ids) - 1, 0)])
    assert not any(steps[-1].goes_on)


def test_a_text_ends_where_a_string_ends_it() -> None:
    model = from_hf(llama(1))
    batch = make_batch(model, torch.float64, (6, 6))
    ids = [row[0].ids for row in generate(model, batch, [END], MOST)]
    stop = next(row for row in ids if len(row) > 2)[1]
    cut = generate(model, batch, [END], MOST, stops=lambda tokens: tokens[-1] == stop)
    for whole, (answer,) in zip(ids, cut, strict=True):
        assert answer.ids == (whole[: whole.index(stop) + 1] if stop in whole else whole)


@pytest.mark.parametrize("build", [bart, llama])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.1},
        {"do_sample": True, "temperature": 0.3, "seed": 5},
    ],
    ids=str,
)
def test_a_text_that_repeats_itself_needs_fewer_passes(
    build: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = from_hf(build(0))
    passes: list[int] = []
    real = type(model).steps

    def steps(self: Any, tokens: Tensor, *rest: Any) -> Tensor:
        passes.append(tokens.shape[1])
        return real(self, tokens, *rest)

    monkeypatch.setattr(type(model), "steps", steps)
    taken = [0, 0]
    for seed in range(3):
        given = torch.randint(3, 40, (1, 5), generator=torch.Generator().manual_seed(seed))
        batch = make_batch(model, torch.float64, (10,))
        batch = answered(batch, given.repeat(1, 2))  # its second half is its first
        found = []
        for i, ahead in enumerate((0, 4)):
            passes.clear()
            options = {"min_new_tokens": 12, "prompt_lookup_num_tokens": ahead}
            some = DecodingConfig.parse({**settings, **options})
            found.append(generate(model, batch, [END], 14, some))
            taken[i] += len(passes)
            assert max(passes, default=0) <= 1 + ahead
        assert found[0][0][0].ids == found[1][0][0].ids
        assert found[0][0][0].score == pytest.approx(found[1][0][0].score)
    assert taken[1] < taken[0]


def test_words_that_come_again() -> None:
    assert looked_up([1, 2, 3, 9, 1, 2], 2) == [3, 9]
    assert looked_up([1, 2, 3, 1, 2, 4, 1, 2], 5) == [4, 1, 2, 4, 1]
    assert looked_up([7, 2, 3, 9, 1, 2], 2) == [3, 9]
    assert looked_up([5, 5, 5], 3) == [5, 5, 5]
    assert looked_up([1, 2, 3], 3) == looked_up([1], 3) == looked_up([1, 1], 0) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_return_sequences": 2}, "raise num_beams, or set do_sample"),
        ({"do_sample": True, "num_beams": 2}, "leave num_beams at 1"),
        ({"temperature": 0.5}, "set do_sample"),
        ({"stop_strings": ["a"], "num_beams": 2}, "leave num_beams at 1"),
        ({"top_p": 1.5}, "less than or equal to 1"),
        ({"prompt_lookup_num_tokens": 3, "num_beams": 2}, "is for single texts"),
        (
            {"prompt_lookup_num_tokens": 3, "cache_implementation": "static"},
            "leave cache_implementation at dynamic",
        ),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        DecodingConfig.parse(settings)


@pytest.mark.parametrize("build", [bart, llama])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 2, "seed": 5},
        {"penalty_alpha": 0.6, "top_k": 4},
    ],
    ids=str,
)
def test_room_of_a_fixed_length_changes_no_text(build: Any, settings: dict[str, Any]) -> None:
    model = from_hf(build(0))
    batch = make_batch(model, torch.float64, (5, 8, 6))
    if model.config.decoder:
        batch = answered(batch, torch.full((3, 1), END))
    found = []
    for kind in ("dynamic", "static"):
        some = DecodingConfig.parse({**settings, "cache_implementation": kind})
        found.append(generate(model, batch, [END], MOST, some))
    assert found[0] == [[(ids, pytest.approx(score)) for ids, score in row] for row in found[1]]


def test_room_for_texts_is_read_from_the_options_of_a_model() -> None:
    kinds = [{"cache_implementation": kind} for kind in ("static", "quantized", None)]
    found = [DecodingConfig.search(options).cache_implementation for options in kinds]
    assert found == ["static", "dynamic", "dynamic"]
    with pytest.raises(ConfigError, match="cache_implementation"):
        DecodingConfig.search({}, cache_implementation="quantized")


def counting(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int]]:
    """Model and tokens of each later pass."""
    passes: list[tuple[Any, int]] = []
    real = Model.steps

    def steps(self: Any, tokens: Tensor, *rest: Any) -> Tensor:
        passes.append((self, tokens.shape[1]))
        return real(self, tokens, *rest)

    monkeypatch.setattr(Model, "steps", steps)
    return passes


@pytest.mark.parametrize("build", [bart, llama])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"do_sample": True, "temperature": 0.5, "seed": 5},
        {"assistant_confidence_threshold": 0.9},
        {"num_assistant_tokens": 1},
    ],
    ids=str,
)
def test_an_assistant_changes_no_text(
    build: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, near = build(0), build(0)
    with torch.no_grad():  # a model that is often right
        for weight in near.parameters():
            weight += 0.02 * weight.std() * torch.randn_like(weight)
    model, others = from_hf(theirs), [from_hf(near), from_hf(build(1))]
    taken = []
    passes = counting(monkeypatch)
    for seed in range(3):
        batch = make_batch(model, torch.float64, (6,))
        own = torch.randint(3, 40, (1, 6), generator=torch.Generator().manual_seed(seed))
        batch = answered(batch, own[:, : 1 if model.config.decoder else 6])
        options = {"max_new_tokens": 12, "min_new_tokens": 12, **settings}
        some = DecodingConfig.parse(options)
        expected = generate(model, batch, [END], 12, some)
        passes.clear()
        for other in others:
            task = next(iter(other.config.tasks))
            given = replace(batch, layout=replace(batch.layout, task=task))
            found = generate(model, batch, [END], 12, some, assistant=Assistant(other, given))
            assert found[0][0].ids == expected[0][0].ids
            assert found[0][0].score == pytest.approx(expected[0][0].score)
            if other is others[0]:
                taken.append(sum(one is model for one, _ in passes))
    assert sum(taken) < 3 * 11


def test_an_assistant_leaves_the_distribution_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = from_hf(llama(0)), from_hf(llama(1))
    batch = make_batch(model, torch.float64, (6,))
    logits = model.prefill(batch).logits[0].double()
    expected = (logits / 2).softmax(-1)
    counts = torch.zeros_like(expected)
    # the second token is drawn after a guess that is often wrong
    number = 400
    for seed in range(number):
        settings = DecodingConfig(do_sample=True, temperature=2.0, seed=seed)
        (one, *_), *_ = generate(
            model, batch, [END], 3, settings, assistant=Assistant(other, batch)
        )
        counts[one.ids[0] if one.ids else END] += 1
        alone = generate(model, batch, [END], 3, settings)[0][0]
        assert one.ids == alone.ids
    wide = (expected * (1 - expected) / number).sqrt()
    assert ((counts / number - expected).abs() <= 5 * wide + 1 / number).all()

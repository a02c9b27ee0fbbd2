"""The scores of candidates are those of a plain loop of whole passes, which have no cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hf_references import Reference, make_batch
from tiny import random_examples, tiny_config, tiny_model
from torch import Tensor
from writers import LM, OPTIONS, PREFIXES, WRITERS, batch_of, whole_logits

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.data.collate import collate
from skillweave.generation import answered, score_candidates, shared_beginning
from skillweave.interop.huggingface import from_hf
from skillweave.model.model import Model

SETS = [[[7], [9, 8, 11, 6]], [[10, 6, 7], [12], [8, 8]], [[6, 13]]]
"""The candidates of three samples, of unequal number and length."""


def of_sample(batch: Batch, n: int, candidate: Sequence[int]) -> Batch:
    """One sample with a candidate after its last span; nothing is padded but what follows."""
    lengths = batch.lengths[n : n + 1]
    begin = batch.inputs[-1][n, : int(lengths[0, -1])].tolist()
    alone = replace(
        batch,
        inputs=tuple(x[n : n + 1] for x in batch.inputs),
        lengths=lengths,
        labels={},
        masked=(),
    )
    return answered(alone, torch.tensor([[*begin, *candidate]]))


def plain_loop(model: Model, batch: Batch, sets: Sequence[Any]) -> list[list[Tensor]]:
    found: list[list[Tensor]] = []
    for n, candidates in enumerate(sets):
        found.append([])
        for candidate in candidates:
            logits_LV = whole_logits(model, of_sample(batch, n, candidate))[0]
            log_p_LV = logits_LV.log_softmax(-1)[-len(candidate) - 1 : -1]
            found[-1].append(log_p_LV.gather(1, torch.tensor(candidate)[:, None]).squeeze(1))
    return found


def compare(model: Model, batch: Batch, bound: float = 1e-9) -> None:
    expected = plain_loop(model, batch, SETS)
    for memory in (2**28, 1):  # all at once, and each candidate alone
        found = score_candidates(model, batch, SETS, memory=memory)
        assert [len(row) for row in found] == [len(row) for row in SETS]
        for row, wanted in zip(found, expected, strict=True):
            for ours, theirs in zip(row, wanted, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)


@pytest.mark.parametrize("reference", WRITERS, ids=lambda one: f"{one.architecture}")
def test_families(reference: Reference) -> None:
    model = from_hf(reference.build())
    (name,) = model.config.tasks
    if "lm" not in model.config.tasks[name].targets:
        pytest.skip("it writes no text")
    scaling = getattr(getattr(model.config.encoder, "position", None), "scaling", None)
    # LongRoPE rotates a whole text by its length, and a written one by that of its beginning.
    turn = getattr(scaling, "original_length", 0)
    more = turn if 2 <= turn < 10 else 0
    compare(model, make_batch(model, torch.float64, (2 + more, 5 + more, 3 + more)))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_options(option: str, prefix: str) -> None:
    torch.manual_seed(0)
    config = tiny_config("dense", targets=LM, tasks=PREFIXES, encoder=OPTIONS[option])
    compare(tiny_model(config), batch_of(prefix, config))


def test_float32() -> None:
    torch.manual_seed(0)
    config = tiny_config("dense", targets=LM, tasks=PREFIXES)
    batch = batch_of("continuing", config)
    compare(tiny_model(config, torch.float32), batch, 1e-5)


def test_the_beginning_is_read_once_and_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = tiny_config("dense", targets=LM, tasks=PREFIXES)
    model, batch = tiny_model(config), batch_of("continuing", config)
    many = [[[6 + i % 20, 7, 8 + i % 5] for i in range(40)] for _ in SETS]
    read, prefills, steps = [], [], Model.steps
    prefill = Model.prefill

    def watched(model: Model, tokens: Tensor, state: Any, count: int) -> Tensor:
        read.append(tokens.shape)
        return steps(model, tokens, state, count)

    def counted(model: Model, *given: Any) -> Any:
        prefills.append(given)
        return prefill(model, *given)

    monkeypatch.setattr(Model, "steps", watched)
    monkeypatch.setattr(Model, "prefill", counted)
    whole = score_candidates(model, batch, many)
    assert read == [(120, 2)] and len(prefills) == 1
    read.clear()
    # of a candidate: keys and values of 8 + 3 tokens in 2 layers, and 3 logits of 30 words
    row = 2 * 2 * 12 * 8 * (8 + 3) + 3 * 3 * 30 * 8
    parts = score_candidates(model, batch, many, memory=50 * row)
    assert read == [(50, 2), (50, 2), (20, 2)] and len(prefills) == 2
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(torch.stack(one), torch.stack(other), rtol=1e-9, atol=1e-9)


def test_probabilities_of_every_continuation_sum_to_one() -> None:
    torch.manual_seed(0)
    config = tiny_config("dense", targets=LM, tasks=PREFIXES)
    batch = batch_of("captioning", config)
    every = [[[i, j] for i in range(30) for j in range(30)]] * 3
    for row in score_candidates(tiny_model(config), batch, every, memory=2**20):
        torch.testing.assert_close(torch.stack(row).sum(1).exp().sum().item(), 1.0)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([[[7]], [], [[7]]], "sample 1 has no candidates; give at least one"),
        ([[[7]], [[8], []], [[7]]], "sample 1: candidate 1 has no tokens; leave it out"),
        ([[[7]]], "candidates for 1 samples, and the batch has 3"),
    ],
)
def test_nothing_to_score(sets: Any, message: str) -> None:
    config = tiny_config("dense", targets=LM, tasks=PREFIXES)
    with pytest.raises(ConfigError, match=message):
        score_candidates(tiny_model(config), batch_of("continuing", config), sets)


def test_a_model_without_an_output_layer_is_named() -> None:
    config = tiny_config()
    batch = collate(
        config.tasks["captioning"].layout("captioning"),
        random_examples("captioning", [(5, 4)], config),
        config.streams,
        4,
    )
    with pytest.raises(ConfigError, match="no target of kind 'lm', so it writes no text"):
        score_candidates(tiny_model(config), batch, [[[7]]])


@pytest.mark.parametrize(
    ("texts", "most", "expected"),
    [
        ([[1, 2, 3], [1, 2, 4, 5]], 9, 2),
        ([[1, 2, 3], [1, 2, 4, 5]], 1, 1),
        ([[1, 2], [1, 2, 3]], 9, 2),
        ([[1], [2]], 3, 0),
        ([[1, 2, 3]], 2, 2),
    ],
)
def test_what_texts_share(texts: list[list[int]], most: int, expected: int) -> None:
    assert shared_beginning(texts, most) == expected

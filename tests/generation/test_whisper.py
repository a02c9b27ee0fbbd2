"""Whisper's rules, against those of Transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation import WhisperTimeStampLogitsProcessor
from transformers.models.whisper.generation_whisper import WhisperGenerationMixin

from skillweave.components.targets.language import LanguageConfig
from skillweave.generation.whisper import Timestamps, Whisper, WhisperConfig, compression_ratio

END, FIRST, TOKENS = 6, 10, 31
"""Tokens: texts, the end, other special tokens (the last is <|notimestamps|>), 21 timestamps."""


class Words:
    """A processor of texts with the tokens above."""

    cls, separator, vocabulary = 7, END, TOKENS

    def numbers(self, names: Sequence[str]) -> list[int]:
        return [int(name) for name in names]


def whisper(**asked: Any) -> Whisper:
    target = LanguageConfig(generation={"no_timestamps_token_id": FIRST - 1})
    words: Any = Words()
    model: Any = None
    return Whisper(model, target, words, WhisperConfig(**asked))


@pytest.mark.parametrize("most_initial", [None, 3])
@given(
    own=st.lists(st.lists(st.integers(0, TOKENS - 1), min_size=5, max_size=5), min_size=1),
    length=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_scores_are_changed_as_in_transformers(
    most_initial: int | None, own: list[list[int]], length: int, seed: int
) -> None:
    options: dict[str, Any] = {"no_timestamps_token_id": FIRST - 1, "eos_token_id": END}
    theirs = WhisperTimeStampLogitsProcessor(
        GenerationConfig(**options, max_initial_timestamp_index=most_initial), begin_index=2
    )
    times = [sorted(token for token in row[:length] if token >= FIRST) for row in own]
    rows = [  # times never decrease
        [7, 8, *(t if t < FIRST else sorted_times.pop(0) for t in row[:length])]
        for row, sorted_times in zip(own, times, strict=True)
    ]
    ids = torch.tensor(rows)
    scores = 3 * torch.randn(len(rows), TOKENS, generator=torch.Generator().manual_seed(seed))
    found = Timestamps(FIRST, END, most_initial)(ids, scores, 2, 99)
    assert torch.equal(found, theirs(ids, scores))


@given(st.lists(st.integers(0, TOKENS - 1).filter(lambda token: token != END), max_size=9))
def test_segments_are_those_of_transformers(ids: list[int]) -> None:
    seek, frames = 60, 37
    segments, count = whisper().segments(ids, seek, frames)
    expected, offset = WhisperGenerationMixin._retrieve_segment(
        seek_sequence=torch.tensor(ids, dtype=torch.long),
        seek_outputs=[None],
        time_offset=torch.tensor([seek], dtype=torch.float64) * 0.02 / 2,
        timestamp_begin=FIRST,
        seek_num_frames=torch.tensor([frames]),
        time_precision=0.02,
        time_precision_features=0.01,
        input_stride=2,
        prev_idx=0,
        idx=0,
        return_token_timestamps=False,
        decoder_input_ids=torch.zeros(1, 3),
    )
    assert count == int(offset)
    assert [one.ids for one in segments] == [one["tokens"].tolist() for one in expected]
    for side in ("start", "end"):
        found = [getattr(one, side) for one in segments]
        assert found == pytest.approx([float(one[side]) for one in expected])


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=60), st.sampled_from([51_865, 70_000]))
def test_compression_ratio_is_that_of_transformers(ids: list[int], vocabulary: int) -> None:
    expected = WhisperGenerationMixin._retrieve_compression_ratio(torch.tensor(ids), vocabulary)
    assert compression_ratio(ids, vocabulary) == expected

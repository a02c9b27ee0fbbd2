"""Transcription: characters of a transcript, joined recordings, and what cannot be learned."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_examples import make_context, make_example
from tiny import tiny_config

from skillweave.config.data import AugmentConfig
from skillweave.data.processors import BadInput, build_processors
from skillweave.tasks.task import Mode
from skillweave.tasks.transcription import needed_frames

CONFIG = tiny_config(
    streams={"sound": {"channels": 4, "max_length": 40}},
    shared=[],
    tasks={},
    targets={"ctc": {"characters": ["x", "y", "z"]}},
)
PROCESSORS = build_processors(CONFIG, {})
TARGET = CONFIG.targets["ctc"]


def build(row: dict[str, Any]) -> Any:
    return make_example("speech_recognition", row, make_context(CONFIG, PROCESSORS, TARGET))


def sound(frames: int) -> np.ndarray:
    return np.sin(np.arange(CONFIG.streams.sound.samples(frames)) / 9).astype(np.float32)


def test_transcripts() -> None:
    example = build({"sound": sound(9), "transcript": "xzzy"})
    assert example.labels["characters"].tolist() == [1, 3, 3, 2]
    assert example.spans[0].length == 9


@pytest.mark.parametrize(
    ("transcript", "message"),
    [
        ("xyw", "characters not in the alphabet: w; list them under model.targets"),
        ("xyxyx", "4 frames are too few for 5 characters"),
        ("xyy" + "x", "4 frames are too few for 4 characters"),
        ("", "no transcript"),
    ],
)
def test_transcripts_that_cannot_be_learned(transcript: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build({"sound": sound(4), "transcript": transcript})


@given(st.text(alphabet="xy", min_size=1, max_size=8))
def test_needed_frames_are_the_shortest_path(transcript: str) -> None:
    path = [transcript[0]]
    for before, character in pairwise(transcript):
        path += [""] * (before == character) + [character]
    assert needed_frames(transcript) == len(path)


def joined(row: dict[str, Any], other: dict[str, Any], seed: int) -> Any:
    """A training example, to which another recording may be joined."""
    context = make_context(
        CONFIG,
        PROCESSORS,
        TARGET,
        Mode.TRAINING,
        draw=lambda rng: other,
        augment=AugmentConfig(join=2),
    )
    return make_example("speech_recognition", row, context, np.random.default_rng(seed))


def test_joined_recordings() -> None:
    row, other = {"sound": sound(9), "transcript": "xy"}, {"sound": sound(5), "transcript": "zz"}
    made = [joined(row, other, seed) for seed in range(20)]
    lengths = {tuple(e.labels["characters"].tolist()): e.spans[0].length for e in made}
    stream = CONFIG.streams.sound
    both = stream.positions(stream.samples(9) + stream.samples(5))
    assert lengths == {(1, 2): 9, (1, 2, 3, 3): both}
    long = {"sound": sound(39), "transcript": "x"}
    with pytest.raises(BadInput, match=r"2 joined recordings take .* positions, more than the 40"):
        for seed in range(20):
            joined(long, long, seed)

"""A Whisper of Transformers transcribes here what it transcribes there, at any length."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

import skillweave as sw
from skillweave import cli
from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.generation import whisper
from skillweave.inference import Predictor, TextWriter, open_writer
from skillweave.inference.speech import SpeechWriter
from skillweave.inference.subtitles import subtitles

NAMES = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>"]
NAMES += ["<|transcribe|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
END, START, EN, ZH, TRANSLATE, TRANSCRIBE, PREVIOUS, _, NO_TIMES = range(256, 256 + len(NAMES))
FIRST = NO_TIMES + 1
TIMES = range(FIRST, FIRST + 51)
"""Timestamps of a window of 1 s."""
NEW = 16
PLAIN: dict[str, Any] = {"max_new_tokens": NEW, "fallback_temperatures": []}
PLAIN |= {"no_speech_threshold": None}
"""Settings that are the defaults of Transformers."""


def tokenizer() -> WhisperTokenizer:
    """A token per byte."""
    alphabet = {c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}
    end = dict.fromkeys(("unk_token", "bos_token", "eos_token"), NAMES[0])
    made = WhisperTokenizer(vocab=alphabet, merges=[], add_prefix_space=False, **end)
    made.add_tokens(NAMES, special_tokens=True)
    made.add_tokens([f"<|{i * 0.02:.2f}|>" for i in range(len(TIMES))])
    return made


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    sides = [f"{side}_{name}" for side in ("encoder", "decoder") for name in ("layers", "ffn_dim")]
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    ids = dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"), END)
    config = WhisperConfig(
        vocab_size=TIMES.stop,
        d_model=32,
        **dict(zip(sides, (1, 48, 2, 48), strict=True)),
        **heads,
        num_mel_bins=20,
        max_source_positions=50,
        max_target_positions=40,
        **ids,
        decoder_start_token_id=START,
        init_std=0.6,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        **ids,
        decoder_start_token_id=START,
        is_multilingual=True,
        lang_to_id={"<|en|>": EN, "<|zh|>": ZH},
        task_to_id={"translate": TRANSLATE, "transcribe": TRANSCRIBE},
        no_timestamps_token_id=NO_TIMES,
        max_initial_timestamp_index=20,
        suppress_tokens=[3, 4, PREVIOUS, START],
        begin_suppress_tokens=[32, END],
    )
    folder = tmp_path_factory.mktemp("whisper")
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=1).save_pretrained(folder)
    model.folder = folder
    return model


@pytest.fixture(scope="module")
def predictor(theirs: Any) -> Predictor:
    return Predictor(theirs.folder)


def recording(seconds: float, begin: int = 0) -> np.ndarray:
    """A tone that rises and swells, with noise."""
    time = (begin + np.arange(int(seconds * 16_000))) / 16_000
    noise = np.random.default_rng(begin).standard_normal(len(time))
    tone = 0.1 * np.sin(2000 * time * (1 + time)) * np.sin(3 * time)
    return (tone + 0.02 * noise).astype(np.float32)


def frames(samples: np.ndarray) -> torch.Tensor:
    whole = len(samples) > 16_000
    return WhisperFeatureExtractor(feature_size=20, chunk_length=1)(
        samples,
        sampling_rate=16_000,
        return_tensors="pt",
        truncation=not whole,
        padding="longest" if whole else "max_length",
    ).input_features


def text(ids: torch.Tensor) -> str:
    own = [token for token in ids.tolist() if token < FIRST]
    return tokenizer().decode(own, skip_special_tokens=True)


def their_segments(model: Any, samples: np.ndarray, **options: Any) -> list[dict[str, Any]]:
    options |= {"return_timestamps": True, "return_segments": True, "max_new_tokens": NEW}
    (found,) = model.generate(frames(samples), **options)["segments"]
    rounded = [
        {**{side: round(float(one[side]), 2) for side in ("start", "end")}, "text": text(ids)}
        for one in found
        for ids in [one["tokens"]]
    ]
    return [one for one in rounded if one["text"].strip()]


ASKED: list[dict[str, Any]] = [
    {},
    {"language": "zh"},
    {"language": "chinese", "task": "translate"},
    {"task": "transcribe", "num_beams": 3},
]


def ours(asked: dict[str, Any]) -> dict[str, Any]:
    return {"speech_task" if name == "task" else name: value for name, value in asked.items()}


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_transcript_is_that_of_transformers(theirs: Any, asked: dict[str, Any]) -> None:
    """A random model writes timestamps without being asked, so they are suppressed."""
    given = [recording(0.7), recording(1.0, 9), recording(0.2, 99)]
    suppressed = [*theirs.generation_config.suppress_tokens, *TIMES]
    expected = [
        theirs.generate(frames(x), max_new_tokens=NEW, suppress_tokens=suppressed, **asked)[0]
        for x in given
    ]
    found = sw.generate(
        theirs.folder, given, max_new_tokens=NEW, suppress_tokens=suppressed, **ours(asked)
    )
    assert found == [text(ids) for ids in expected]


def test_predictions_are_transcripts_too(theirs: Any) -> None:
    """Of the model's own language and task: what a run was trained with, else detected."""
    target = Predictor(theirs.folder).model.config.targets["lm"]
    suppressed = [*theirs.generation_config.suppress_tokens, *TIMES]
    options = {**target.generation, "suppress_tokens": suppressed}
    given = [recording(0.7), recording(0.6, 5)]
    trained = ["<|zh|>", "<|translate|>", "<|notimestamps|>"]
    for begin, asked in (([], {}), (trained, {"language": "zh", "task": "translate"})):
        update = {"generation": options, "begin": begin, "max_answer_tokens": NEW}
        predictor = Predictor(theirs.folder)
        changed = predictor.model.config.changed(targets={"lm": target.model_copy(update=update)})
        predictor.model.config = changed
        expected = [
            text(
                theirs.generate(frames(x), max_new_tokens=NEW, suppress_tokens=suppressed, **asked)[
                    0
                ]
            )
            for x in given
        ]
        answers = Predictor(predictor.model).predict("lm", [{"sound": x} for x in given])
        assert [one["transcript"] for one in answers] == expected


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("seconds", [0.7, 1.0, 3.13])
def test_segments_are_those_of_transformers(
    theirs: Any, predictor: Predictor, asked: dict[str, Any], seconds: float
) -> None:
    writer = open_writer(predictor, None, {**PLAIN, **ours(asked), "return_timestamps": True})
    ((found,),) = writer.write([recording(seconds)])
    assert found["segments"] == their_segments(theirs, recording(seconds), **asked)
    assert found["text"].strip() and found["language"] in ("en", "zh")
    if "language" in asked:
        assert found["language"] == "zh"


def test_silent_windows_are_left_out_as_in_transformers(theirs: Any, predictor: Predictor) -> None:
    """Recordings of several lengths together."""
    thresholds = {"logprob_threshold": -0.85, "no_speech_threshold": 2e-6}
    given = [recording(3.13), recording(0.8, 9000), recording(2.5, 20_000)]
    expected = [
        their_segments(
            theirs,
            samples,
            language="zh",
            temperature=(0.0,),
            compression_ratio_threshold=9.0,
            **thresholds,
        )
        for samples in given
    ]
    writer = open_writer(
        predictor, None, {**PLAIN, **thresholds, "language": "zh", "return_timestamps": True}
    )
    assert [answer["segments"] for (answer,) in writer.write(given)] == expected
    free = open_writer(predictor, None, {**PLAIN, "language": "zh", "return_timestamps": True})
    assert [answer["segments"] for (answer,) in free.write(given)] != expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"logprob_threshold": 0.0}, [1.0, 0.3, 0.6]),
        ({"compression_ratio_threshold": 1e-3}, [1.0, 0.3, 0.6]),
        ({"logprob_threshold": -99.0, "compression_ratio_threshold": 99.0}, [1.0]),
        ({"logprob_threshold": None, "compression_ratio_threshold": None}, [1.0]),
    ],
)
def test_a_text_that_fails_is_drawn_at_the_next_temperature(
    predictor: Predictor,
    options: dict[str, Any],
    expected: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temperatures = []
    real = whisper.generate

    def generate(*given: Any) -> Any:
        temperatures.append(given[4].temperature)
        return real(*given)

    monkeypatch.setattr(whisper, "generate", generate)
    settings = {**PLAIN, "return_timestamps": True, "fallback_temperatures": [0.3, 0.6], **options}
    writer = open_writer(predictor, None, settings)
    (first,) = writer.write([recording(0.4)])
    # the first window; others may follow the timestamps
    assert temperatures[: len(expected)] == expected
    assert set(temperatures) == set(expected)
    assert [first] == list(writer.write([recording(0.4)]))  # the same draws


def test_a_threshold_of_none_is_none(predictor: Predictor) -> None:
    thresholds = {f"{name}_threshold": None for name in ("no_speech", "logprob")}
    writer = open_writer(predictor, None, thresholds)
    assert isinstance(writer, SpeechWriter)
    asked = writer.asked
    assert asked.no_speech_threshold is None and asked.logprob_threshold is None


def test_settings_that_the_model_was_saved_with(theirs: Any, tmp_path: Path) -> None:
    shutil.copytree(theirs.folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "generation_config.json"
    options = json.loads(file.read_text())
    own = {"return_timestamps": True, "logprob_threshold": -0.5, "language": "<|en|>"}
    file.write_text(json.dumps(options | own))
    ((found,),) = open_writer(Predictor(tmp_path), None, PLAIN).write([recording(0.7)])
    assert found["segments"] == their_segments(theirs, recording(0.7), language="en")
    writer = open_writer(Predictor(tmp_path), None, {"return_timestamps": False})
    assert isinstance(writer, SpeechWriter)
    assert (writer.asked.return_timestamps, writer.asked.logprob_threshold) == (False, -0.5)
    file.write_text(json.dumps(options | {"condition_on_prev_tokens": True}))
    with pytest.raises(ConfigError, match="condition_on_prev_tokens=True has no counterpart"):
        Predictor(tmp_path)


def test_a_long_recording_has_segments_without_being_asked(predictor: Predictor) -> None:
    (long,), (short,) = open_writer(predictor, None, PLAIN).write([recording(2), recording(0.5)])
    assert long["segments"][-1]["end"] > 1 and "segments" not in short
    assert {long["language"], short["language"]} <= {"en", "zh"}


def test_one_command_writes_subtitles(
    theirs: Any, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, recording(2), 16_000, subtype="FLOAT")
    command = ["generate", str(theirs.folder), str(file), "--language", "zh", "--return-timestamps"]
    assert cli.main(command) == 0
    line = json.loads(capsys.readouterr().out)
    writer = open_writer(predictor, None, {"language": "zh", "return_timestamps": True})
    ((expected,),) = writer.write([file])
    assert line == {"input": str(file), **expected}
    for suffix in (".srt", ".vtt"):
        out = tmp_path / f"a{suffix}"
        assert cli.main([*command[:-1], "--out", str(out)]) == 0
        assert out.read_text() == subtitles(expected["segments"], suffix)
        assert cli.main([*command[:-1], str(file), "--out", str(out)]) == 2
        assert "subtitles of one recording" in capsys.readouterr().err


def test_a_stream_is_the_transcript(theirs: Any, predictor: Predictor) -> None:
    settings = {"max_new_tokens": NEW, "suppress_tokens": [*TIMES], "language": "en"}
    (whole,) = sw.generate(predictor, [recording(0.5)], **settings)
    assert "".join(sw.generate(predictor, recording(0.5), stream=True, **settings)) in whole
    with pytest.raises(ConfigError, match="at most 1 s are heard"):
        sw.generate(predictor, recording(1.5), stream=True)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (np.zeros(16_000, np.float32), "the recording is silent"),
        (np.full(40_000, 0.25, np.float32), "the recording is silent"),
        (np.zeros(0, np.float32), "the recording is empty"),
    ],
)
@pytest.mark.parametrize("timestamps", [False, True])
def test_a_silent_or_empty_recording(
    predictor: Predictor, samples: np.ndarray, told: str, timestamps: bool
) -> None:
    with pytest.raises(BadInput, match=told):
        sw.generate(predictor, [samples], return_timestamps=timestamps, max_new_tokens=NEW)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"language": "klingon"}, "unknown language 'klingon'; valid names: en, zh"),
        ({"speech_task": "sing"}, "speech_task"),
        ({"return_timestamps": True, "stop_strings": ["a"]}, "leave them out"),
        ({"return_timestamp": True}, "return_timestamp"),
    ],
)
def test_bad_settings(predictor: Predictor, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sw.generate(predictor, [recording(0.5)], **options)


def test_a_whisper_of_one_language(theirs: Any, predictor: Predictor) -> None:
    target = predictor.model.config.targets["lm"]
    options = {**target.generation, "is_multilingual": False}
    changed = target.model_copy(update={"generation": options})
    words = TextWriter(predictor).processor
    with pytest.raises(ConfigError, match="knows one language"):
        asked = whisper.WhisperConfig(language="en")
        whisper.Whisper(predictor.model, changed, words, asked)


def test_subtitles() -> None:
    """Formats as in their specifications: a comma or a point before thousandths, escaped in VTT."""
    segments = [
        {"start": 0.0, "end": 1.5, "text": " a < b"},
        {"start": 3723.04, "end": 3724.0, "text": "二\n\nc"},
    ]
    assert subtitles(segments, ".srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\na < b\n\n2\n01:02:03,040 --> 01:02:04,000\n二 c\n"
    )
    assert subtitles(segments, ".vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt; b\n\n01:02:03.040 --> 01:02:04.000\n二 c\n"
    )

"""Real pretrained weights give the answers of Transformers.

Skipped without them: set SKILLWEAVE_REAL_WEIGHTS to a folder with model folders of Transformers
named `minilm` (sentence-transformers/all-MiniLM-L6-v2), `smollm2-135m`
(HuggingFaceTB/SmolLM2-135M-Instruct) and `whisper-tiny-en` (openai/whisper-tiny.en); those that are
missing are skipped.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
import yaml
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
)

import skillweave as sw
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source
from skillweave.evaluation.zero_shot import open_unseen
from skillweave.inference import open_writer

ROOT = os.environ.get("SKILLWEAVE_REAL_WEIGHTS")
SENTENCES = ["A cat sits on the mat.", "Stocks fell sharply today.", "一只猫", "x"]
PROMPTS = ["The capital of France is", "def add(a, b):\n", "Water boils at"]


def folder(name: str) -> Path:
    """The folder of a model; skips the test without it."""
    if ROOT is None or not (Path(ROOT) / name / "config.json").is_file():
        pytest.skip(f"no {name} in SKILLWEAVE_REAL_WEIGHTS")
    return Path(ROOT) / name


def test_sentence_vectors() -> None:
    place = folder("minilm")
    tokenizer, theirs = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place)
    given = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden_NLD = theirs(**given).last_hidden_state
    mask_NL1 = given["attention_mask"].unsqueeze(-1)
    mean_ND = (hidden_NLD * mask_NL1).sum(1) / mask_NL1.sum(1)
    expected = torch.nn.functional.normalize(mean_ND, dim=1).numpy()
    predictor = sw.Predictor(place)
    (task,) = predictor.model.config.tasks
    found = predictor.encode(task, text=SENTENCES)
    assert np.abs(found - expected).max() < 1e-5
    assert found[0] @ found[1] < 0.1  # a cat is no stock


def test_a_language_model_continues_as_theirs() -> None:
    place = folder("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(place)
    theirs = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    expected = []
    for prompt in PROMPTS:
        given = tokenizer(prompt, return_tensors="pt")
        rows = theirs.generate(**given, max_new_tokens=24, do_sample=False)
        new = rows[0, given["input_ids"].shape[1] :]
        expected.append(tokenizer.decode(new, skip_special_tokens=True))
    found = sw.generate(place, PROMPTS, max_new_tokens=24)
    assert found == expected and "Paris" in found[0]


def test_a_transcript_is_theirs() -> None:
    place = folder("whisper-tiny-en")
    data = DataConfig(path="pack:speech")
    row = open_source(data, "test", ["sound"])[0]
    processor = AutoFeatureExtractor.from_pretrained(place)
    theirs = AutoModelForSpeechSeq2Seq.from_pretrained(place, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(place)
    sound, rate = soundfile.read(io.BytesIO(row["sound"]["bytes"]), dtype="float32")
    sound = soxr.resample(sound, rate, 16_000)
    given = processor(sound, sampling_rate=16_000, return_tensors="pt")
    rows = theirs.generate(**given, max_new_tokens=20, do_sample=False)
    expected = tokenizer.decode(rows[0], skip_special_tokens=True)
    (found,) = sw.generate(place, [row["sound"]], max_new_tokens=20)
    assert found == expected


def test_segments_of_a_long_recording_are_theirs() -> None:
    place = folder("whisper-tiny-en")
    rows = open_source(DataConfig(path="pack:speech"), "test", ["sound"])
    sounds = [soundfile.read(io.BytesIO(row["sound"]["bytes"]), dtype="float32") for row in rows]
    pause = np.zeros(4000, np.float32)
    parts = [x for sound, rate in sounds for x in (soxr.resample(sound, rate, 16_000), pause)]
    sound = np.concatenate(parts)[: 16_000 * 50]
    given = AutoFeatureExtractor.from_pretrained(place)(
        sound, sampling_rate=16_000, return_tensors="pt", truncation=False, padding="longest"
    )
    theirs = AutoModelForSpeechSeq2Seq.from_pretrained(place, dtype=torch.float32)
    options = {"return_timestamps": True, "max_new_tokens": 20}
    (segments,) = theirs.generate(**given, **options, return_segments=True)["segments"]
    tokenizer = AutoTokenizer.from_pretrained(place)
    expected = [tokenizer.decode(one["tokens"], skip_special_tokens=True) for one in segments]
    plain = {"fallback_temperatures": [], "no_speech_threshold": None}
    ((found,),) = open_writer(sw.Predictor(place), None, {**options, **plain}).write([sound])
    assert [one["text"] for one in found["segments"]] == [x for x in expected if x.strip()]
    assert found["segments"][-1]["end"] > 30


REVIEWS = [
    ("a moving film with wonderful actors, I loved every minute", "positive"),
    ("dull, far too long, and the ending makes no sense", "negative"),
    ("the best meal I have had in years", "positive"),
    ("the room was dirty and the staff were rude", "negative"),
]


def test_likelihoods_of_classes_are_theirs(tmp_path: Path) -> None:
    place, names = folder("smollm2-135m"), {"positive": "good", "negative": "very bad"}
    template = "Review: {text}\nThis review is {label}"
    rows = [{"text": text, "label": label} for text, label in REVIEWS]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"kind": "perplexity_classification", "template": template, "classes": names}
    task["data"] = {"path": {"test": str(tmp_path / "test.jsonl")}}
    (tmp_path / "tasks.yaml").write_text(
        yaml.safe_dump({"tasks": {"sentiment": task}}, sort_keys=False)
    )
    model, _ = open_unseen(place, tmp_path / "tasks.yaml", device="cpu")
    found = sw.predict(model, "sentiment", [row["text"] for row in rows])
    tokenizer = AutoTokenizer.from_pretrained(place)
    theirs = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    for row, answer in zip(rows, found, strict=True):
        scores = []
        for name in names.values():
            text = template.format(text=row["text"], label=name)
            given = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
            ends_L = given.pop("offset_mapping")[0, 1:, 1]
            with torch.no_grad():
                log_p_LV = theirs(**given).logits[0, :-1].log_softmax(-1)
            log_p_L = log_p_LV.gather(1, given["input_ids"][0, 1:, None]).squeeze(1)
            scores.append(log_p_L[ends_L > len(text) - len(name)].mean())
        shares = torch.tensor(list(answer["probabilities"].values()))
        torch.testing.assert_close(shares, torch.stack(scores).softmax(0), rtol=1e-5, atol=1e-5)

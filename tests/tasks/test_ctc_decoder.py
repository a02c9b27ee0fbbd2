"""Transcripts with beams and a language model, from recipe to prediction."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TARGETS, task, tiny_config, tiny_model

from skillweave.config import ConfigError
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolve, resolved_task
from skillweave.tasks.transcription import ctc_decoder, decode_ctc

# "xy" and "xz" sound almost alike, "xz" a little more.
LOGITS = torch.tensor(
    [[0.1, 0.8, 0.05, 0.05], [0.05, 0.05, 0.44, 0.46], [0.9, 0.04, 0.03, 0.03]]
).log()


def model(**options: Any) -> Model:
    targets = {**TARGETS, "ctc": {"characters": ["x", "y", "z"], **options}}
    tasks = {"transcribe": {**task("ctc", "sound"), "settings": {"kind": "speech_recognition"}}}
    made = tiny_model(tiny_config(targets=targets, tasks=tasks))
    made.assets["transcripts.txt"] = b"xy\nxy\nxy\nxyx\nz\n"
    return made


def transcript(**options: Any) -> str:
    made = model(**options)
    return ctc_decoder(made, resolved_task(made.config, "transcribe"))(LOGITS)


def test_a_language_model_says_what_is_likely() -> None:
    assert transcript() == "xz"
    assert transcript(beams=8) == "xz"
    assert transcript(beams=8, language=2) == "xy"
    assert transcript(beams=8, language=2, language_weight=0.0) == "xz"


def test_it_learns_from_transcripts_and_further_text(tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("ㄇㄚ1\nlatin letters\n")

    def prepared(text: str) -> list[str]:
        recipe = {
            "model": {
                "streams": {"sound": {"channels": 8}},
                "targets": {"ctc": {"language": 3, "language_text": text}},
            },
            "tasks": {"speech_recognition": {"data": {"path": "pack:speech"}}},
            "training": {"steps": 1},
        }
        assets = resolve(RecipeConfig.parse(recipe)).assets
        return assets["transcripts.txt"].decode().splitlines()

    lines = prepared(str(more))
    assert lines[-1] == "ㄇㄚ1" and len(lines) > 500 and "latin letters" not in lines
    with pytest.raises(ConfigError, match=r"language_text .*absent\.txt: no such file"):
        prepared(str(tmp_path / "absent.txt"))


def test_ctc_merges_repeats_and_drops_blanks() -> None:
    assert decode_ctc(torch.tensor([0, 1, 1, 0, 1, 2, 2, 0]), ["a", "b"]) == "aab"
    assert decode_ctc(torch.tensor([0, 0]), ["a"]) == ""

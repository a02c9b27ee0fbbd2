"""Transcripts with beams and a language model, from recipe to prediction."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TARGETS, tiny_config, tiny_model

from skillweave.config import ConfigError
from skillweave.config.targets import TRANSCRIPTS_ASSET
from skillweave.evaluation.predictions import ctc_decoder
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.prepare import prepare

# "xy" and "xz" sound almost alike, "xz" a little more.
LOGITS = torch.tensor(
    [[0.1, 0.8, 0.05, 0.05], [0.05, 0.05, 0.44, 0.46], [0.9, 0.04, 0.03, 0.03]]
).log()


def model(**options: Any) -> Model:
    made = tiny_model(
        tiny_config(targets={**TARGETS, "ctc": {"characters": ["x", "y", "z"], **options}})
    )
    made.assets[TRANSCRIPTS_ASSET] = b"xy\nxy\nxy\nxyx\nz\n"
    return made


def test_a_language_model_says_what_is_likely() -> None:
    assert ctc_decoder(model(), "transcribe")(LOGITS) == "xz"
    assert ctc_decoder(model(beams=8), "transcribe")(LOGITS) == "xz"
    assert ctc_decoder(model(beams=8, language=2), "transcribe")(LOGITS) == "xy"
    assert (
        ctc_decoder(model(beams=8, language=2, language_weight=0.0), "transcribe")(LOGITS) == "xz"
    )


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
        return prepare(RecipeConfig.parse(recipe))[1][TRANSCRIPTS_ASSET].decode().splitlines()

    lines = prepared(str(more))
    assert lines[-1] == "ㄇㄚ1" and len(lines) > 500 and "latin letters" not in lines
    with pytest.raises(ConfigError, match=r"language_text .*absent\.txt: no such file"):
        prepared(str(tmp_path / "absent.txt"))

"""What stands beside a model's weights in folders of Hugging Face's: how inputs are made and
answers searched for, both ways."""

from __future__ import annotations

import json
from pathlib import Path

from skillweave.components.targets.ctc import CTCConfig
from skillweave.interop.huggingface.generation_settings import with_search
from skillweave.interop.huggingface.preprocessors import with_preprocessor, write_preprocessor
from skillweave.interop.huggingface.tokens import (
    read_characters,
    read_tokenizer_asset,
    text_processor,
    with_special_names,
    write_characters,
    write_tokenizer,
)
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

TOKENISERS = {"whisper": "WhisperTokenizer"}
"""Family → the class that its pipeline wants of a tokeniser."""
POOLING_FILE = "1_Pooling/config.json"
POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_max_tokens": "max",
}
"""How sentence-transformers writes it → ours."""


def read_beside(
    folder: Path, config: ModelConfig, start: int | None
) -> tuple[ModelConfig, dict[str, bytes]]:
    """A configuration with what a folder of theirs says beside it, and its assets. `start`: see
    `with_special_names`."""
    assets = read_tokenizer_asset(folder, config)
    config = with_special_names(folder, config, assets, start)
    return with_search(folder, with_preprocessor(folder, read_characters(folder, config))), assets


def write_beside(model: Model, out: Path, family: str) -> None:
    """What makes the same of texts, pictures and recordings there as here. `family`: their
    `model_type`."""
    config = model.config
    if processor := text_processor(config, model.assets):
        text = config.streams.text
        segments = text.segments if text and "segment" in text.embedding else 1
        write_tokenizer(processor, out, _closed(config), segments, TOKENISERS.get(family))
    for target in config.targets.values():
        if isinstance(target, CTCConfig):
            write_characters(out, target.characters)
    write_preprocessor(out, config)


def _closed(config: ModelConfig) -> bool | None:
    """Whether a text by itself ends with [SEP]: one that a decoder reads again does, and one that
    is to go on does not."""
    language = any(target.writes_text for target in config.targets.values())
    decodes = any(config.decoded(task) for task in config.tasks)
    return None if language == decodes else decodes


def pooling_left(folder: Path) -> str:
    """What to say of the vector of a sentence that sentence-transformers makes, which is no part of
    the model."""
    file = folder / POOLING_FILE
    given = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    mode = next((ours for theirs, ours in POOLINGS.items() if given.get(theirs)), None)
    return (
        f"\n  its sentences' pooling ({mode}) is a target's here: give it `pooling: {mode}`"
        if mode
        else ""
    )

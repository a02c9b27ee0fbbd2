"""The files of a Hugging Face folder beside its weights: how inputs are prepared and answers
generated, in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skillweave.config.streams import CHAT_TEMPLATE
from skillweave.interop.huggingface.family import Family, Head, look_up
from skillweave.interop.huggingface.input_check import require_same_inputs
from skillweave.interop.huggingface.tokenizer_files import (
    read_chat_template,
    read_special_tokens,
    read_tokenizer_asset,
    text_processor,
    write_tokenizer,
)
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model


def read_processor_files(
    folder: Path, config: ModelConfig, hf_config: Any, family: Family
) -> tuple[ModelConfig, dict[str, bytes]]:
    """A configuration with what the files of a folder say, and the model's assets.

    Raises ConfigError for what has no counterpart here.
    """
    assets = read_tokenizer_asset(folder, config)
    settings = config.model_dump(mode="json")
    part = look_up(hf_config, family.text_config) if family.text_config else hf_config
    read_special_tokens(folder, settings, assets, part)
    if assets:
        assets |= read_chat_template(folder, settings)
    for file in family.processor_files:
        file.read(folder, settings)
    config = ModelConfig.parse(settings, str(folder))
    require_same_inputs(folder, config)
    return config, assets


def write_processor_files(model: Model, folder: Path, family: Family, head: Head) -> None:
    """Write the files with which Transformers makes the same inputs as our processors."""
    config = model.config
    if processor := text_processor(config, model.assets):
        text = config.streams.text
        segments = text.segments if text and "segment" in text.embedding else 1
        write_tokenizer(processor, folder, head.ends_text, segments, family.tokenizer_class)
    if template := model.assets.get(CHAT_TEMPLATE):
        (folder / CHAT_TEMPLATE).write_bytes(template)
    for file in family.processor_files:
        file.write(folder, config)

"""How answers are searched for, both ways with Hugging Face's `generation_config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skillweave.components.targets.language import LanguageConfig
from skillweave.config import ConfigError
from skillweave.model.config import ModelConfig

FILE = "generation_config.json"
OPTIONS = {
    "beams": "num_beams",
    "length_penalty": "length_penalty",
    "max_answer_tokens": "max_new_tokens",
}
"""Ours → theirs."""


def writer(config: ModelConfig) -> LanguageConfig | None:
    """The target by which a decoder writes."""
    return next(
        (t for t in config.targets.values() if isinstance(t, LanguageConfig) and config.decoder),
        None,
    )


def with_search(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration with the beams, the length penalty and the longest answer of a folder's
    settings.

    Raises ConfigError for a file that is no JSON.
    """
    file, target = folder / FILE, writer(config)
    if target is None or not file.is_file():
        return config
    try:
        given = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not valid JSON: {error}") from None
    found = {
        ours: given[theirs] for ours, theirs in OPTIONS.items() if given.get(theirs) is not None
    }
    targets = {
        name: t.model_copy(update=found) if t is target else t for name, t in config.targets.items()
    }
    return ModelConfig.parse(
        config.model_copy(update={"targets": targets}).model_dump(mode="json"), str(folder)
    )


def set_search(theirs: Any, config: ModelConfig) -> None:
    """Let a model of theirs search as ours does."""
    target = writer(config)
    if target is None or not theirs.can_generate():
        return
    room = (
        config.target_embedding.max_length if config.target_embedding else target.max_answer_tokens
    )
    found = {other: getattr(target, own) for own, other in OPTIONS.items()}
    found["max_new_tokens"] = min(target.max_answer_tokens, room - 1 - len(target.begin))
    theirs.generation_config.update(**found, forced_eos_token_id=None)

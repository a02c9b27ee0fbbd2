"""How answers are generated: `generation_config.json`, in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skillweave.interop.huggingface.family import Head
from skillweave.interop.huggingface.json_files import read_json
from skillweave.model.config import ModelConfig

FILE = "generation_config.json"


def read_generation_settings(folder: Path, settings: dict[str, Any], head: Head) -> None:
    """Update settings of our model with those of a folder. Raises ConfigError for invalid JSON."""
    given = read_json(folder / FILE)
    for kind in head.targets:
        for ours, theirs in head.generation.items():
            if given.get(theirs) is not None:
                settings["targets"][kind][ours] = given[theirs]


def set_generation_settings(hf_model: Any, config: ModelConfig, head: Head) -> None:
    """Let a Hugging Face model generate as ours does."""
    if not head.generation or not config.target_embedding:
        return
    target: Any = next(iter(config.targets.values()))
    found = {theirs: getattr(target, ours) for ours, theirs in head.generation.items()}
    # [CLS] and the tokens that each answer begins with take positions too.
    room = config.target_embedding.max_length - 1 - len(target.begin)
    found["max_new_tokens"] = min(found["max_new_tokens"], room)
    hf_model.generation_config.update(**found)

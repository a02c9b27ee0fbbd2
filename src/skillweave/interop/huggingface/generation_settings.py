"""How answers are generated: `generation_config.json`, or search options in older files of
`config.json`, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.config.decoding import NOT_FOLLOWED, not_followed
from skillweave.interop.huggingface.family import Head
from skillweave.interop.huggingface.json_files import read_json
from skillweave.interop.huggingface.tokenizer_files import token_ids
from skillweave.model.config import ModelConfig
from skillweave.model.folders import CONFIG_FILE
from skillweave.model.model import Model

FILE = "generation_config.json"
NOT_KEPT = {"transformers_version", "_from_model_config", "max_length", "max_new_tokens"}
START = "decoder_start_token_id"
SPECIAL = {"pad_token_id", "bos_token_id", "eos_token_id", START}
"""Ids that are also options of the model, which gives them."""


def stored_generation(folder: Path) -> dict[str, Any]:
    """The generation options of a folder. Raises ConfigError for invalid JSON."""
    from transformers import GenerationConfig

    if (folder / FILE).is_file():
        return read_json(folder / FILE)
    known = GenerationConfig().to_dict()
    return {name: x for name, x in read_json(folder / CONFIG_FILE).items() if name in known}


def read_generation_settings(
    given: Mapping[str, Any], config: ModelConfig, hf_config: Any, head: Head
) -> ModelConfig:
    """The configuration with generation options of Transformers.

    Raises ConfigError for those that a decoder's search cannot follow.
    """
    if "lm" not in head.targets:
        return config
    found = {
        name: x
        for name, x in given.items()
        if x is not None
        and name not in NOT_KEPT
        and (name not in SPECIAL or x != getattr(hf_config, name, None))
    }
    settings = config.targets["lm"].model_dump(mode="json")
    if head.generation:
        for name, value in not_followed(found).items():
            neutral = " or ".join(map(repr, NOT_FOLLOWED[name])) or "null"
            raise ConfigError(
                f"{FILE}: {name}={value!r} has no counterpart here; remove it, or set {neutral}"
            )
        if START in found:
            raise ConfigError(
                f"{FILE}: {START}={found[START]!r} is not that of {CONFIG_FILE}"
                f" ({getattr(hf_config, START, None)!r}); give both the same"
            )
        if given.get("max_new_tokens") or given.get("max_length"):
            # `max_length` counts the first token
            longest = given.get("max_new_tokens") or max(given["max_length"] - 1, 1)
            settings["max_answer_tokens"] = longest
        for ours, theirs in head.generation.items():
            settings[ours] = found.pop(theirs, settings[ours])
    settings["generation"] = found
    target = type(config.targets["lm"]).parse(settings, FILE)
    return config.changed(targets={**config.targets, "lm": target})


def set_generation_settings(hf_model: Any, model: Model, head: Head) -> None:
    """Let a Hugging Face model generate as ours does."""
    target: Any = model.config.targets.get("lm")
    if target is None or not hf_model.can_generate():
        return
    found = dict(target.generation)
    if head.generation and model.config.target_embedding:
        found |= {theirs: getattr(target, ours) for ours, theirs in head.generation.items()}
        # [CLS] and the tokens that each answer begins with take positions too.
        room = model.config.target_embedding.max_length - 1 - len(target.begin)
        found["max_new_tokens"] = min(target.max_answer_tokens, room)
        found |= _first_tokens(target.begin, found, model)
    # with the last one, GenerationConfig drops options that are not its own
    given = {**hf_model.generation_config.to_diff_dict(), **found, "_from_model_config": False}
    hf_model.generation_config = type(hf_model.generation_config)(**given)


def _first_tokens(begin: list[str], given: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Options for the tokens that each answer begins with: Whisper's language and task, or one
    token. Raises ConfigError for others."""
    rest, found = [], {}
    for token in begin:
        if token in given.get("lang_to_id", {}):
            found["language"] = token
        elif token.strip("<|>") in given.get("task_to_id", {}):
            found["task"] = token.strip("<|>")
        elif token != "<|notimestamps|>":  # Transformers adds it itself
            rest.append(token)
    ids = token_ids(rest, model.config, model.assets)
    if len(rest) > 1 or (rest and found):
        raise ConfigError(
            f"targets.lm.begin {begin}: Transformers begins texts with one given token, or with the"
            " language and task of a Whisper whose generation_config.json names them"
        )
    return found | ({"forced_bos_token_id": ids[0]} if ids else {})

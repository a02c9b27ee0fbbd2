"""Tokenizers in both directions: those of a Hugging Face folder as an asset of our model, and ours
as Transformers reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.config.reading import reading
from skillweave.config.streams import CHAT_TEMPLATE, tokenizer_asset
from skillweave.data.processors.text import TextProcessor
from skillweave.data.processors.tokenizer import (
    KEYS,
    PAD,
    ROLES,
    SETTINGS,
    convert_older,
    from_json,
    read_tokenizer,
    read_with_transformers,
    special_names,
)
from skillweave.interop.huggingface.json_files import read_json, write_json
from skillweave.model.config import ModelConfig

FILE = "tokenizer.json"
OLDER = (
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
)
"""Older folders have one of these instead."""
TWO_LANGUAGES = "source.spm"
"""Folders of Marian have this and `target.spm`."""
SPECIAL_TOKEN_IDS = {"pad_token_id": "pad", "bos_token_id": "cls", "eos_token_id": "separator"}
"""Option of a Hugging Face configuration → role of the special token whose id it gives."""


def read_tokenizer_asset(folder: Path, config: ModelConfig) -> dict[str, bytes]:
    """The tokenizer that Transformers makes of a folder's files, as `tokenizer.json`; empty if
    there is none or the model reads no text.

    Raises ConfigError for Marian's two tokenizers, and for one that has more tokens than the
    model's word embedding has rows.
    """
    stream = config.streams.text or config.target_embedding
    file = next((folder / name for name in (FILE, *OLDER) if (folder / name).is_file()), None)
    if file is None and (folder / TWO_LANGUAGES).is_file():
        raise ConfigError(
            f"{folder / TWO_LANGUAGES}: a tokenizer for each language has no counterpart here; give"
            " a tokenizer.json, or a folder with config.json and the weights alone"
        )
    if file is None or stream is None:
        return {}
    with reading(file, "a tokenizer that transformers and tokenizers can read here"):
        tokenizer = _read(folder, file, stream.vocabulary)
        if tokenizer.post_processor is None:
            tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1")
        size = tokenizer.get_vocab_size()
    if size > stream.vocabulary:
        raise ConfigError(
            f"{file}: the tokenizer has {size} tokens, the word embedding {stream.vocabulary} rows;"
            " give the tokenizer that the model was trained with, or resize the embedding"
        )
    return {tokenizer_asset(Modality.TEXT): tokenizer.to_str().encode()}


def _read(folder: Path, file: Path, rows: int) -> Tokenizer:
    """The tokenizer that Transformers makes of a folder. The class of the tokenizer, and options
    and tokens in the files beside a `tokenizer.json`, count more than that file. But its tokens
    keep their numbers, and none is added for which a model of so many `rows` has no vector."""
    alone = from_json(file.read_bytes()) if file.name == FILE else None
    whole = from_json(convert_older(folder))
    if alone is None:
        return whole
    same_numbers = alone.get_vocab().items() <= whole.get_vocab().items()
    return whole if same_numbers and whole.get_vocab_size() <= rows else alone


def read_special_tokens(
    folder: Path, settings: dict[str, Any], assets: Mapping[str, bytes], hf_config: Any
) -> None:
    """Update the settings of a model with the special tokens of a folder that differ from BERT's.

    `hf_config`: names the token that the decoder's texts begin with (BART: </s>, T5: <pad>), which
    also replaces a [CLS] that the tokenizer lacks, and padding that the tokenizer's files do not
    name (a classifier of GPT-2).
    """
    special = special_names(folder)
    asset = assets.get(tokenizer_asset(Modality.TEXT))
    tokenizer = read_tokenizer(asset) if asset else None
    if tokenizer:
        special |= _names_of_class(folder, tokenizer, special)
    start, pad = (getattr(hf_config, f"{name}_token_id", None) for name in ("decoder_start", "pad"))
    first = tokenizer.id_to_token(start) if tokenizer and start is not None else None
    if tokenizer and tokenizer.token_to_id(special.get("pad", PAD)) is None and pad is not None:
        special |= {"pad": name} if (name := tokenizer.id_to_token(pad)) else {}
    text, target = settings["streams"].get("text"), settings["target_embedding"]
    for stream, cls in ((text, special.get("cls", first)), (target, first)):
        names = special | ({"cls": cls} if cls else {})
        if stream and names:
            stream["tokenizer"] = {"special": names}


def _names_of_class(
    folder: Path, tokenizer: Tokenizer, special: Mapping[str, str]
) -> dict[str, str]:
    """Role → name of the special tokens that no file names, since the class of the tokenizer knows
    them (the folders of RoBERTa and T5)."""
    names = {**ROLES, **special}
    absent = {role for role, name in names.items() if tokenizer.token_to_id(name) is None}
    if not absent:
        return {}
    theirs = read_with_transformers(folder)
    known = {role: name for key, role in KEYS.items() if (name := getattr(theirs, key, None))}
    return {
        role: name
        for role, name in known.items()
        if role in absent and tokenizer.token_to_id(name) is not None
    }


def read_chat_template(folder: Path, settings: dict[str, Any]) -> dict[str, bytes]:
    """The chat template of a folder as an asset; empty if there is none or the model reads no text.

    Its marks (`<|im_start|>`) are then read as special tokens in texts, as Transformers does, which
    the model's settings are updated with. Of several templates it is the one named default.
    """
    file, stream = folder / CHAT_TEMPLATE, settings["streams"].get("text")
    given: Any = read_json(folder / SETTINGS).get("chat_template")
    if file.is_file():
        given = file.read_text("utf-8")
    if isinstance(given, list):
        named = {one.get("name"): one.get("template") for one in given if isinstance(one, dict)}
        given = named.get("default")
    if not isinstance(given, str) or not stream:
        return {}
    stream["tokenizer"] = {**stream.get("tokenizer", {}), "kind": "loaded", "parse_special": True}
    return {CHAT_TEMPLATE: given.encode()}


def text_processor(config: ModelConfig, assets: Mapping[str, bytes]) -> TextProcessor | None:
    """The processor of a model's texts, or of its decoder's if no stream reads text; None without a
    tokenizer."""
    stream = config.streams.text or config.target_embedding
    asset = assets.get(tokenizer_asset(Modality.TEXT))
    return TextProcessor(stream, read_tokenizer(asset)) if stream and asset else None


def special_token_ids(config: ModelConfig, assets: Mapping[str, bytes]) -> dict[str, Any]:
    """The ids of special tokens, as options of a Hugging Face configuration."""
    processor = text_processor(config, assets)
    if processor is None:
        return _given_ids(config)
    names = {option: processor.names[role] for option, role in SPECIAL_TOKEN_IDS.items()}
    if config.target_embedding:
        special = config.target_embedding.tokenizer.special
        names["decoder_start_token_id"] = special.get("cls", processor.names["cls"])
    found = {option: processor.tokenizer.token_to_id(name) for option, name in names.items()}
    return {option: number for option, number in found.items() if number is not None}


def _given_ids(config: ModelConfig) -> dict[str, Any]:
    text, target = config.streams.text, config.target_embedding
    reader = text or target
    given = reader.special_ids if reader else {}
    found = {option: given[role] for option, role in SPECIAL_TOKEN_IDS.items() if role in given}
    if target and "cls" in target.special_ids:
        found["decoder_start_token_id"] = target.special_ids["cls"]
        if text is None:
            del found["bos_token_id"]
    return found


def with_special_ids(config: ModelConfig, hf_config: Any, part: str = "") -> ModelConfig:
    """The configuration of a model without a tokenizer, with the ids of special tokens of a Hugging
    Face configuration, or of a `part` of it."""
    source = getattr(hf_config, part) if part else hf_config
    ids = {role: getattr(source, option, None) for option, role in SPECIAL_TOKEN_IDS.items()}
    changes: dict[str, Any] = {}
    if text := config.streams.text:
        text = text.model_copy(update={"special_ids": _present(ids)})
        changes["streams"] = config.streams.model_copy(update={"text": text})
    if target := config.target_embedding:
        own = _present(ids | {"cls": getattr(hf_config, "decoder_start_token_id", None)})
        changes["target_embedding"] = target.model_copy(update={"special_ids": own})
    return config.model_copy(update=changes)


def _present(ids: Mapping[str, Any]) -> dict[str, Any]:
    return {role: number for role, number in ids.items() if number is not None}


def token_ids(names: Sequence[str], config: ModelConfig, assets: Mapping[str, bytes]) -> list[int]:
    """The ids of tokens. Raises ConfigError if no tokenizer has them."""
    processor = text_processor(config, assets)
    ids = [processor.tokenizer.token_to_id(name) if processor else None for name in names]
    if None in ids:
        raise ConfigError(f"no tokenizer of the model has the tokens {', '.join(names)}")
    return [number for number in ids if number is not None]


def write_tokenizer(
    processor: TextProcessor,
    folder: Path,
    ends_text: bool | None = None,
    segments: int = 1,
    tokenizer_class: str | None = None,
) -> None:
    """Write a tokenizer that makes the same tokens of a text, or of two texts, as `processor`.

    `ends_text`: whether a single text ends with [SEP]; None: as in `processor`. `segments`: number
    of the model's segments; with more than one the second text is in a segment of its own.
    `tokenizer_class`: reads the tokenizer; None: the class that reads any.
    """
    import transformers

    tokenizer = processor.tokenizer
    segment = int(segments > 1)
    _set_template(processor, ends_text, segment)
    names = {key: processor.names[role] for key, role in KEYS.items()}
    known = {key: name for key, name in names.items() if tokenizer.token_to_id(name) is not None}
    # Without a mask, Transformers sees the padding of a text that is filled up, as we do.
    more = {"token_type_ids": segments > 1, "attention_mask": not processor.filled}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=processor.max_length,
        model_input_names=["input_ids", *(name for name, given in more.items() if given)],
        **known,
    ).save_pretrained(folder)
    if tokenizer_class:
        file = folder / SETTINGS
        write_json(file, read_json(file) | {"tokenizer_class": tokenizer_class})


def _set_template(processor: TextProcessor, ends_text: bool | None, segment: int) -> None:
    """Let the tokenizer put the special tokens around texts that the processor puts there."""
    tokenizer = processor.tokenizer
    before, after = processor.frame
    end = after if ends_text is None else [processor.separator] if ends_text else []
    if tokenizer.post_processor is not None and end == after:
        return
    first, between, last = processor.pair_frame

    def names(ids: Sequence[int]) -> list[Any]:
        return [tokenizer.id_to_token(number) for number in ids]

    second = [f"{name}:{segment}" for name in ("$B", *names(last))]
    special = sorted({*before, *end, *first, *between, *last})
    tokenizer.post_processor = TemplateProcessing(
        single=[*names(before), "$A", *names(end)],
        pair=[*names(first), "$A", *names(between), *second],
        special_tokens=list(zip(names(special), special, strict=True)),
    )

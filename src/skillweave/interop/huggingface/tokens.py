"""Tokenisers both ways: a Hugging Face folder's as an asset of our model, ours as transformers
reads it; characters of CTC."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.config.streams import tokenizer_asset
from skillweave.data.processors.text import TextProcessor
from skillweave.data.processors.tokenizer import KEYS, read_tokenizer, special_names
from skillweave.model.config import ModelConfig

FILE = "tokenizer.json"
CHARACTERS = "vocab.json"
SETTINGS = "tokenizer_config.json"
BLANK, SPACE = "<pad>", "|"
"""How a CTC tokeniser of theirs writes the blank and the space between words."""
OLDER = ("vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
"""One of these is there in place of it in older folders."""
NUMBERS = {"pad_token_id": "pad", "bos_token_id": "cls", "eos_token_id": "separator"}
"""Their options → the special token that each gives the number of."""


def read_tokenizer_asset(folder: Path, config: ModelConfig) -> dict[str, bytes]:
    """The folder's `tokenizer.json`, or what transformers makes of older files, if there are any
    and the model reads text.

    Raises ConfigError where it has more pieces than the model has words.
    """
    from tokenizers import Tokenizer

    stream = config.streams.text or config.target_embedding
    file = next((folder / name for name in (FILE, *OLDER) if (folder / name).is_file()), None)
    if file is None or stream is None:
        return {}
    try:
        content = file.read_bytes() if file.name == FILE else _from_older(folder)
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the libraries raise bare Exception
        raise ConfigError(
            f"{file}: not a tokeniser that transformers and tokenizers can read here: {error}"
        ) from None
    if (pieces := tokenizer.get_vocab_size()) > stream.vocabulary:
        raise ConfigError(
            f"{file}: the tokeniser has {pieces} pieces, the word embedding {stream.vocabulary}"
            " rows; give the tokeniser that the model was trained with, or resize the embedding"
        )
    return {tokenizer_asset(Modality.TEXT): content}


def _from_older(folder: Path) -> bytes:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return tokenizer.backend_tokenizer.to_str().encode()


def with_special_names(
    folder: Path, config: ModelConfig, assets: Mapping[str, bytes], start: int | None
) -> ModelConfig:
    """The configuration with what the folder's tokeniser calls its special tokens, where it is not
    as in BERT.

    `start`: the number of the token that a decoder's texts begin with (BART: </s>, T5: <pad>),
    where it is another than [CLS]; it stands for a [CLS] that the tokeniser does not have.
    """
    data, special = config.model_dump(mode="json"), special_names(folder)
    first = None
    if start is not None and (asset := assets.get(tokenizer_asset(Modality.TEXT))):
        first = read_tokenizer(asset).id_to_token(start)
    for stream, written, cls in (
        (config.streams.text, data["streams"].get("text"), special.get("cls", first)),
        (config.target_embedding, data["target_embedding"], first),
    ):
        if stream:
            names = special | ({"cls": cls} if cls else {})
            written["tokenizer"] = stream.tokenizer.with_special_tokens(names).model_dump()
    return ModelConfig.parse(data, str(folder))


def text_processor(config: ModelConfig, assets: Mapping[str, bytes]) -> TextProcessor | None:
    """What makes the tokens of a model's texts, or of its decoder's where no stream reads text;
    None without a tokeniser."""
    stream, asset = (
        config.streams.text or config.target_embedding,
        assets.get(tokenizer_asset(Modality.TEXT)),
    )
    return TextProcessor(stream, read_tokenizer(asset)) if stream and asset else None


def token_numbers(config: ModelConfig, assets: Mapping[str, bytes]) -> dict[str, int]:
    """The numbers of special tokens, as options of their configuration."""
    processor = text_processor(config, assets)
    if processor is None:
        return {}
    names = {option: processor.names[role] for option, role in NUMBERS.items()}
    if config.target_embedding:
        names["decoder_start_token_id"] = {
            **processor.names,
            **config.target_embedding.tokenizer.special,
        }["cls"]
    numbers = {option: processor.tokenizer.token_to_id(name) for option, name in names.items()}
    return {option: number for option, number in numbers.items() if number is not None}


def write_tokenizer(
    processor: TextProcessor,
    folder: Path,
    closed: bool | None = None,
    segments: int = 1,
    kind: str | None = None,
) -> None:
    """The tokeniser as transformers reads it: it begins and ends a text, or two, as `processor`
    does, and cuts where it does.

    `closed`: whether a text by itself ends with [SEP]; absent, as `processor` has it. `segments`:
    of the model's; with two a second text is in one of its own. `kind`: the class that is to read
    it; absent, the one for any tokeniser.
    """
    import transformers
    from tokenizers.processors import TemplateProcessing

    tokenizer, segment = processor.tokenizer, int(segments > 1)
    (opening, closing), (before, between, after) = processor.frame, processor.pair_frame
    wanted = closing if closed is None else [processor.separator] if closed else []
    if tokenizer.post_processor is None or wanted != closing:
        single = [*_names(tokenizer, opening), "$A", *_names(tokenizer, wanted)]
        second = [f"{name}:{segment}" for name in ("$B", *_names(tokenizer, after))]
        pair = [*_names(tokenizer, before), "$A", *_names(tokenizer, between), *second]
        special = {*opening, *wanted, *before, *between, *after}
        names = [(tokenizer.id_to_token(number), number) for number in sorted(special)]
        tokenizer.post_processor = TemplateProcessing(
            single=single, pair=pair, special_tokens=names
        )
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=processor.max_length,
        model_input_names=["input_ids", *(["token_type_ids"] if segment else []), "attention_mask"],
        **{
            key: name
            for key, role in KEYS.items()
            if tokenizer.token_to_id(name := processor.names[role]) is not None
        },
    )
    theirs.save_pretrained(folder)
    if kind:
        settings = json.loads((folder / SETTINGS).read_text("utf-8")) | {"tokenizer_class": kind}
        (folder / SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=2), "utf-8")


def _names(tokenizer: Any, numbers: Sequence[int]) -> list[str]:
    return [tokenizer.id_to_token(number) for number in numbers]


def read_characters(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration with the characters of the folder's `vocab.json`, if it has one and the
    model a CTC target.

    Raises ConfigError where the file has more of them than the model has classes.
    """
    file, data = folder / CHARACTERS, config.model_dump(mode="json")
    targets = [target for target in data["targets"].values() if target["kind"] == "ctc"]
    if not file.is_file() or not targets:
        return config
    names = {number: piece for piece, number in json.loads(file.read_text("utf-8")).items()}
    for target in targets:
        given = target["characters"]
        if max(names) > len(given):
            raise ConfigError(
                f"{file}: it numbers characters up to {max(names)}, and the output layer up to"
                f" {len(given)}"
            )
        target["characters"] = [
            names.get(i, given[i - 1]).replace(SPACE, " ") for i in range(1, len(given) + 1)
        ]
    return ModelConfig.parse(data, str(folder))


def write_characters(folder: Path, characters: Sequence[str]) -> None:
    """`vocab.json` for their Wav2Vec2CTCTokenizer, and its settings."""
    pieces = [BLANK, *(character.replace(" ", SPACE) for character in characters)]
    text = json.dumps({piece: number for number, piece in enumerate(pieces)}, ensure_ascii=False)
    (folder / CHARACTERS).write_text(text, "utf-8")
    settings = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "word_delimiter_token": SPACE,
        "pad_token": BLANK,
        "unk_token": BLANK,
    }
    (folder / SETTINGS).write_text(
        json.dumps(settings | {"bos_token": None, "eos_token": None}), "utf-8"
    )

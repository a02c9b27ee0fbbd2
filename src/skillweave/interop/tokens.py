"""The tokeniser of a Hugging Face folder as an asset of our model, and the characters of a CTC tokeniser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skillweave.batch import Modality
from skillweave.config import ConfigError, ModelConfig
from skillweave.config.streams import tokenizer_asset
from skillweave.data.processors.tokenizer import special_names

FILE = "tokenizer.json"
CHARACTERS = "vocab.json"
BLANK, SPACE = "<pad>", "|"
"""How a CTC tokeniser of theirs writes the blank and the space between words."""
OLDER = ("vocab.txt", "merges.txt")
"""One of these is there in place of it in older folders."""


def read_tokenizer_asset(folder: Path, config: ModelConfig) -> dict[str, bytes]:
    """The folder's `tokenizer.json`, or what transformers makes of older files, if there are any and the model reads text.

    Raises ConfigError where it has more pieces than the model has words.
    """
    from tokenizers import Tokenizer

    file = next((folder / name for name in (FILE, *OLDER) if (folder / name).is_file()), None)
    if file is None or Modality.TEXT not in config.streams.present():
        return {}
    try:
        content = file.read_bytes() if file.name == FILE else _from_older(folder)
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"{file}: not a tokeniser of Hugging Face's tokenizers library: {error}") from None
    pieces, words = tokenizer.get_vocab_size(), config.vocabulary(Modality.TEXT)
    if pieces > words:
        raise ConfigError(
            f"{file}: the tokeniser has {pieces} pieces, the word embedding {words} rows; "
            "give the tokeniser that the model was trained with, or resize the embedding"
        )
    return {tokenizer_asset(Modality.TEXT): content}


def _from_older(folder: Path) -> bytes:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return tokenizer.backend_tokenizer.to_str().encode()


def with_special_names(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration with what the folder's tokeniser calls its special tokens, where it is not as in BERT."""
    data = config.model_dump(mode="json")
    for stream in filter(None, [data["streams"].get("text"), data["target_embedding"]]):
        stream["tokenizer"]["special"] = special_names(folder)
    return ModelConfig.parse(data, str(folder))


def read_characters(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration with the characters of the folder's `vocab.json`, if it has one and the model a CTC target.

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
            raise ConfigError(f"{file}: it numbers characters up to {max(names)}, and the output layer up to {len(given)}")
        target["characters"] = [names.get(i, given[i - 1]).replace(SPACE, " ") for i in range(1, len(given) + 1)]
    return ModelConfig.parse(data, str(folder))


def write_characters(folder: Path, characters: Sequence[str]) -> None:
    """`vocab.json` for their Wav2Vec2CTCTokenizer."""
    pieces = [BLANK, *(character.replace(" ", SPACE) for character in characters)]
    text = json.dumps({piece: number for number, piece in enumerate(pieces)}, ensure_ascii=False)
    (folder / CHARACTERS).write_text(text, "utf-8")

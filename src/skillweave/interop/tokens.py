"""The tokeniser of a Hugging Face folder as an asset of our model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skillweave.batch import Modality
from skillweave.config import ConfigError, ModelConfig
from skillweave.config.streams import tokenizer_asset
from skillweave.data.processors.tokenizer import special_names

FILE = "tokenizer.json"
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
    if "text" in data["streams"]:
        data["streams"]["text"]["tokenizer"]["special"] = special_names(folder)
    return ModelConfig.parse(data, str(folder))

"""The tokeniser of a Hugging Face folder as an asset of our model."""

from __future__ import annotations

from pathlib import Path

from skillweave.batch import Modality
from skillweave.config import ConfigError, ModelConfig
from skillweave.config.streams import tokenizer_asset
from skillweave.data.processors.tokenizer import special_names

FILE = "tokenizer.json"


def read_tokenizer_asset(folder: Path, config: ModelConfig) -> dict[str, bytes]:
    """The folder's `tokenizer.json`, if it has one and the model reads text.

    Raises ConfigError where it has more pieces than the model has words.
    """
    from tokenizers import Tokenizer

    file = folder / FILE
    if not file.is_file() or Modality.TEXT not in config.streams.present():
        return {}
    content = file.read_bytes()
    try:
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


def with_special_names(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration with what the folder's tokeniser calls its special tokens, where it is not as in BERT."""
    data = config.model_dump(mode="json")
    if "text" in data["streams"]:
        data["streams"]["text"]["tokenizer"]["special"] = special_names(folder)
    return ModelConfig.parse(data, str(folder))

"""Tokenisers: training on a recipe's own texts, loading from Hugging Face files, and their names among a model's assets."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from skillweave.batch import Modality
from skillweave.config.base import ConfigError
from skillweave.config.model import TokenizerConfig

PAD, UNKNOWN, CLS, SEPARATOR, MASK, CLS_CODE = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[CLS_code]"
SPECIAL_TOKENS = (PAD, UNKNOWN, CLS, SEPARATOR, MASK, CLS_CODE)
"""In the order of their ids, from 0, in a trained tokeniser."""


def tokenizer_asset(modality: Modality) -> str:
    """The name of a modality's tokeniser among the model's assets."""
    return f"{modality.value}_tokenizer.json"


def read_tokenizer(asset: bytes) -> Tokenizer:
    """The tokeniser stored as a model's asset."""
    return _prepared(Tokenizer.from_str(asset.decode("utf-8")))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A Hugging Face tokeniser: a folder with `tokenizer.json` or `vocab.txt` (BERT's wordpieces), or one of these files.

    Special tokens that it lacks are added at the end. Raises ConfigError when there is no such file or it cannot be read.
    """
    place = Path(path)
    candidates = [place / "tokenizer.json", place / "vocab.txt"] if place.is_dir() else [place]
    file = next((f for f in candidates if f.is_file()), None)
    if file is None:
        raise ConfigError(f"tokenizer {place}: no such file; give a folder with tokenizer.json or vocab.txt, or one of these")
    try:
        return _prepared(_from_vocabulary(file) if file.suffix == ".txt" else Tokenizer.from_file(str(file)))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"tokenizer {file}: not a tokeniser of Hugging Face's tokenizers library: {error}") from None


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig, vocabulary: int) -> Tokenizer:
    """Wordpieces after BERT's normalisation, or byte-level BPE, with at most `vocabulary` pieces.

    Raises ConfigError when there is no text or `vocabulary` leaves no room for a single character.
    """
    words = list(texts)
    if not any(word.strip() for word in words):
        raise ConfigError("no text to train a tokeniser on; name the text's column under the task's data.columns")
    if config.kind == "bpe":
        return _train_bpe(words, config, vocabulary)
    return _train_wordpiece(words, config, vocabulary)


def _train_wordpiece(texts: list[str], config: TokenizerConfig, vocabulary: int) -> Tokenizer:
    room = alphabet = vocabulary - len(SPECIAL_TOKENS)
    while alphabet > 0:
        tokenizer = _wordpiece(models.WordPiece(unk_token=UNKNOWN), config.lowercase)
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocabulary,
            min_frequency=config.min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            limit_alphabet=alphabet,
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        over = tokenizer.get_vocab_size() - vocabulary
        if over <= 0:
            return _prepared(tokenizer)
        # The trainer bounds the alphabet, not the characters' further forms inside words (##a): leave room for these.
        alphabet -= max(over // 2, 1)
    raise ConfigError(f"vocabulary {vocabulary} leaves room for {max(room, 0)} pieces beside the {len(SPECIAL_TOKENS)} special tokens")


def _train_bpe(texts: list[str], config: TokenizerConfig, vocabulary: int) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(alphabet) + len(SPECIAL_TOKENS):
        raise ConfigError(f"vocabulary {vocabulary} is too small for byte-level BPE; give at least {len(alphabet) + len(SPECIAL_TOKENS)}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase() if config.lowercase else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _prepared(tokenizer)


def _wordpiece(model: models.WordPiece, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _from_vocabulary(file: Path) -> Tokenizer:
    settings = file.with_name("tokenizer_config.json")
    lowercase = json.loads(settings.read_text("utf-8")).get("do_lower_case", True) if settings.is_file() else True
    pieces = file.read_text("utf-8").splitlines()
    model = models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=UNKNOWN)
    return _wordpiece(model, lowercase)


def _prepared(tokenizer: Tokenizer) -> Tokenizer:
    """With all special tokens, without padding or cutting, and blind to special tokens spelt out in a text."""
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer

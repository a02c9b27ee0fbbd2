"""Tokenizers: trained on a recipe's own texts, loaded from Hugging Face files, or read from a
model's assets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from skillweave.batch import Modality
from skillweave.config.base import ConfigError
from skillweave.config.streams import ASSETS_FOLDER, TrainedTokenizerConfig, tokenizer_asset

SPECIAL_TOKENS = PAD, UNKNOWN, CLS, SEPARATOR, MASK, CLS_CODE = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[CLS_code]",
)
"""In the order of their ids, from 0, in a trained tokenizer."""
ROLES = {"pad": PAD, "unknown": UNKNOWN, "cls": CLS, "separator": SEPARATOR, "mask": MASK}
"""Role of a special token → its name, unless a stream says otherwise."""
KEYS = {
    "bos_token": "cls",
    "eos_token": "separator",
    "pad_token": "pad",
    "unk_token": "unknown",
    "cls_token": "cls",
    "sep_token": "separator",
    "mask_token": "mask",
}
"""Key in Hugging Face's files → role. A later key wins over an earlier one."""


def read_tokenizer(asset: bytes) -> Tokenizer:
    """The tokenizer that is stored as a model's asset. It gets no further tokens, since the model
    has one embedding for each."""
    return _configure(Tokenizer.from_str(asset.decode("utf-8")))


def special_names(folder: Path) -> dict[str, str]:
    """Role → name of the special tokens in a folder's files that are not named as in BERT. Raises
    ConfigError for a file that is not JSON."""
    found: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = folder / name
        try:
            given = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        except ValueError as error:
            raise ConfigError(f"{file}: not valid JSON: {error}") from None
        for key, role in KEYS.items():
            token = given.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[role] = token
    return {role: token for role, token in found.items() if token != ROLES[role]}


def load_tokenizer(path: str | Path, special: Mapping[str, str] | None = None) -> Tokenizer:
    """The tokenizer of a folder with `tokenizer.json` or `vocab.txt` (BERT's WordPiece), of one of
    these files, or of a model's folder.

    Special tokens that it lacks are added at the end. `special`: role → name where it is not as in
    BERT. Raises ConfigError for a tokenizer that is absent or cannot be read.
    """
    path = Path(path)
    names = ("tokenizer.json", "vocab.txt", f"{ASSETS_FOLDER}/{tokenizer_asset(Modality.TEXT)}")
    candidates = [path / name for name in names] if path.is_dir() else [path]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        remedy = (
            "give a folder with tokenizer.json or vocab.txt, one of the two, or a model folder that"
            " has a tokenizer"
        )
        raise ConfigError(f"tokenizer {path}: no such file; {remedy}")
    try:
        is_vocabulary = file.suffix == ".txt"
        loaded = _from_vocabulary(file) if is_vocabulary else Tokenizer.from_file(str(file))
        return _with_special_tokens(loaded, special)
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(
            f"tokenizer {file}: not a tokenizer of Hugging Face's tokenizers library: {error}"
        ) from None


def train_tokenizer(
    texts: Iterable[str], config: TrainedTokenizerConfig, vocabulary: int
) -> Tokenizer:
    """WordPiece after BERT's normalisation, or byte-level BPE, with at most `vocabulary` tokens.

    The same texts give the same tokens and ids. Raises ConfigError when there is no text, or no
    room for characters.
    """
    # drops halves of surrogate pairs
    samples = [text.encode("utf-8", "ignore").decode("utf-8") for text in texts]
    if not any(sample.strip() for sample in samples):
        raise ConfigError(
            "no text to train a tokenizer on; name the text's column under the task's data.columns"
        )
    if config.kind == "bpe":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        least = len(alphabet) + len(SPECIAL_TOKENS)
        if vocabulary < least:
            raise ConfigError(
                f"vocabulary {vocabulary} is too small for byte-level BPE; give at least {least}"
            )
        empty = _bpe(models.BPE(), config.lowercase)
        learned = _train(empty, trainers.BpeTrainer, samples, alphabet, config, vocabulary)
        merges = [(first, second) for first, second in learned["merges"]]
        trained = _bpe(models.BPE(learned["vocab"], merges), config.lowercase)
    else:
        alphabet = _wordpiece_alphabet(samples, config.lowercase, vocabulary)
        empty = _wordpiece({}, config.lowercase)
        learned = _train(empty, trainers.WordPieceTrainer, samples, alphabet, config, vocabulary)
        trained = _wordpiece(learned["vocab"], config.lowercase)
    return _with_special_tokens(trained)


def _train(
    empty: Tokenizer,
    trainer: Any,
    texts: list[str],
    alphabet: list[str],
    config: TrainedTokenizerConfig,
    vocabulary: int,
) -> dict[str, Any]:
    """Train a tokenizer. Returns its model as in `tokenizer.json`.

    The trainer numbers its alphabet in an order that differs from run to run, and breaks ties by
    these numbers. An alphabet passed as special tokens keeps its order; the caller makes a
    tokenizer to which it is not special.
    """
    settings = trainer(
        vocab_size=vocabulary,
        min_frequency=config.min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *alphabet],
        limit_alphabet=0,
        show_progress=False,
    )
    empty.train_from_iterator(texts, settings)
    return json.loads(empty.to_str())["model"]


def _wordpiece_alphabet(texts: list[str], lowercase: bool, vocabulary: int) -> list[str]:
    """Single characters and, where they occur within words, their `##` forms. Only the most
    frequent where there is no room for all."""
    room = vocabulary - len(SPECIAL_TOKENS)
    probe = _wordpiece({}, lowercase)
    settings = trainers.WordPieceTrainer(vocab_size=0, min_frequency=2**62, show_progress=False)
    probe.train_from_iterator(texts, settings)
    forms = set(probe.get_vocab())
    if len(forms) <= room:
        return sorted(forms)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(probe.normalizer.normalize_str(text))
    kept: list[str] = []
    for character in sorted(counts, key=lambda c: (-counts[c], c)):
        pair = [form for form in (character, f"##{character}") if form in forms]
        if len(kept) + len(pair) > room:
            break
        kept += pair
    if not kept:
        raise ConfigError(
            f"vocabulary {vocabulary} has no room for characters beside the {len(SPECIAL_TOKENS)}"
            " special tokens"
        )
    return sorted(kept)


def _bpe(model: models.BPE, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _wordpiece(vocabulary: dict[str, int], lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _from_vocabulary(file: Path) -> Tokenizer:
    settings = file.with_name("tokenizer_config.json")
    given = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
    tokens = file.read_text("utf-8").splitlines()
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return _wordpiece(vocabulary, given.get("do_lower_case", True))


def _with_special_tokens(
    tokenizer: Tokenizer, special: Mapping[str, str] | None = None
) -> Tokenizer:
    tokenizer.add_special_tokens([*{**ROLES, **(special or {})}.values(), CLS_CODE])
    return _configure(tokenizer)


def _configure(tokenizer: Tokenizer) -> Tokenizer:
    """No padding, no truncation, and special tokens spelt out in a text are plain text."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer

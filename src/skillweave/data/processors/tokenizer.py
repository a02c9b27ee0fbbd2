"""Tokenisers: training on a recipe's own texts, loading from Hugging Face files, their names among
a model's assets."""

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

PAD, UNKNOWN, CLS, SEPARATOR, MASK, CLS_CODE = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[CLS_code]",
)
SPECIAL_TOKENS = (PAD, UNKNOWN, CLS, SEPARATOR, MASK, CLS_CODE)
"""In the order of their ids, from 0, in a trained tokeniser."""
ROLES = {"pad": PAD, "unknown": UNKNOWN, "cls": CLS, "separator": SEPARATOR, "mask": MASK}
"""What special tokens are for → their names, unless a stream says otherwise."""
KEYS = {
    "bos_token": "cls",
    "eos_token": "separator",
    "pad_token": "pad",
    "unk_token": "unknown",
    "cls_token": "cls",
    "sep_token": "separator",
    "mask_token": "mask",
}
"""Their names in Hugging Face's files → what they are for; a later one counts before an earlier
one."""


def read_tokenizer(asset: bytes) -> Tokenizer:
    """The tokeniser stored as a model's asset, with the pieces that it has: the model has as many
    words."""
    return _plain(Tokenizer.from_str(asset.decode("utf-8")))


def special_names(folder: Path) -> dict[str, str]:
    """What a folder's files call special tokens, where it is not as in BERT. Raises ConfigError for
    a file that is no JSON."""
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
            found |= {role: token} if isinstance(token, str) else {}
    return {role: token for role, token in found.items() if token != ROLES[role]}


def load_tokenizer(path: str | Path, special: Mapping[str, str] | None = None) -> Tokenizer:
    """A tokeniser: a folder with `tokenizer.json` or `vocab.txt` (BERT's wordpieces), one of the
    two, or a model's own folder.

    Special tokens that it lacks are added at the end. `special`: what they are called where it is
    not as in BERT. Raises ConfigError when it is absent or cannot be read.
    """
    place = Path(path)
    names = ("tokenizer.json", "vocab.txt", f"{ASSETS_FOLDER}/{tokenizer_asset(Modality.TEXT)}")
    candidates = [place / name for name in names] if place.is_dir() else [place]
    file = next((f for f in candidates if f.is_file()), None)
    if file is None:
        remedy = (
            "give a folder with tokenizer.json or vocab.txt, one of the two, or a model folder that"
            " has a tokeniser"
        )
        raise ConfigError(f"tokenizer {place}: no such file; {remedy}")
    try:
        return _prepared(
            _from_vocabulary(file) if file.suffix == ".txt" else Tokenizer.from_file(str(file)),
            special,
        )
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(
            f"tokenizer {file}: not a tokeniser of Hugging Face's tokenizers library: {error}"
        ) from None


def train_tokenizer(
    texts: Iterable[str], config: TrainedTokenizerConfig, vocabulary: int
) -> Tokenizer:
    """Wordpieces after BERT's normalisation, or byte-level BPE, with at most `vocabulary` pieces.

    The same texts give the same pieces and ids. Raises ConfigError when there is no text, or no
    room for characters.
    """
    # drops halves of surrogate pairs
    samples = [text.encode("utf-8", "ignore").decode("utf-8") for text in texts]
    if not any(sample.strip() for sample in samples):
        raise ConfigError(
            "no text to train a tokeniser on; name the text's column under the task's data.columns"
        )
    if config.kind == "bpe":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        least = len(alphabet) + len(SPECIAL_TOKENS)
        if vocabulary < least:
            raise ConfigError(
                f"vocabulary {vocabulary} is too small for byte-level BPE; give at least {least}"
            )
        blank = _bpe(models.BPE(), config.lowercase)
        learned = _learn(blank, trainers.BpeTrainer, samples, alphabet, config, vocabulary)
        merges = [(first, second) for first, second in learned["merges"]]
        return _prepared(_bpe(models.BPE(learned["vocab"], merges), config.lowercase))
    alphabet = _alphabet(samples, config.lowercase, vocabulary)
    blank = _wordpiece(models.WordPiece(unk_token=UNKNOWN), config.lowercase)
    learned = _learn(blank, trainers.WordPieceTrainer, samples, alphabet, config, vocabulary)
    return _prepared(
        _wordpiece(models.WordPiece(learned["vocab"], unk_token=UNKNOWN), config.lowercase)
    )


def _learn(
    blank: Tokenizer,
    trainer: Any,
    texts: list[str],
    alphabet: list[str],
    config: TrainedTokenizerConfig,
    vocabulary: int,
) -> dict[str, Any]:
    """Train, and give the model as `tokenizer.json` has it.

    The trainer numbers its alphabet in an order that differs from run to run, and breaks ties by
    these numbers. Passed as special tokens the alphabet keeps its order; the caller makes a
    tokeniser to which it is not special.
    """
    settings = trainer(
        vocab_size=vocabulary,
        min_frequency=config.min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *alphabet],
        limit_alphabet=0,
        show_progress=False,
    )
    blank.train_from_iterator(texts, settings)
    return json.loads(blank.to_str())["model"]


def _alphabet(texts: list[str], lowercase: bool, vocabulary: int) -> list[str]:
    """Single characters and, where they occur inside words, their `##` forms; the commonest where
    not all find room."""
    room = vocabulary - len(SPECIAL_TOKENS)
    probe = _wordpiece(models.WordPiece(unk_token=UNKNOWN), lowercase)
    probe.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=0, min_frequency=2**62, show_progress=False)
    )
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


def _wordpiece(model: models.WordPiece, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _from_vocabulary(file: Path) -> Tokenizer:
    settings = file.with_name("tokenizer_config.json")
    lowercase = (
        json.loads(settings.read_text("utf-8")).get("do_lower_case", True)
        if settings.is_file()
        else True
    )
    pieces = file.read_text("utf-8").splitlines()
    model = models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=UNKNOWN)
    return _wordpiece(model, lowercase)


def _prepared(tokenizer: Tokenizer, special: Mapping[str, str] | None = None) -> Tokenizer:
    """With all special tokens."""
    tokenizer.add_special_tokens([*{**ROLES, **(special or {})}.values(), CLS_CODE])
    return _plain(tokenizer)


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """Without padding or cutting, and blind to special tokens spelt out in a text."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer

"""Tokenizers: trained on a recipe's own texts, loaded from Hugging Face files, or read from a
model's assets."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from skillweave.batch import Modality
from skillweave.config.base import ConfigError
from skillweave.config.reading import read_lines, read_object, reading
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
SETTINGS = "tokenizer_config.json"
"""The file of a tokenizer's settings in a folder of Hugging Face."""
LIBRARY = "a tokenizer of Hugging Face's tokenizers library"
MAX_GROWTH = 10_000
"""Longest text that a tokenizer's replacements may make of a character."""
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
_HAN = r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"
_SPACES_AT_HAN = re.compile(rf"(?<={_HAN}) | (?={_HAN})")


def read_tokenizer(asset: bytes, name: str = "tokenizer.json") -> Tokenizer:
    """The tokenizer that is stored as a model's asset. It gets no further tokens, since the model
    has one embedding for each. Raises ConfigError with the asset's `name` for a damaged one."""
    with reading(name, LIBRARY):
        return _configure(from_json(asset))


def from_json(content: bytes) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, with the numbers that the file gives to its tokens.

    The library numbers added tokens by how many tokens there are. Where numbers are missing, two
    tokens would share one. So missing numbers get tokens that no text has.
    """
    data = json.loads(content)
    if (growth := _growth([data.get("normalizer"), data.get("decoder")])) > MAX_GROWTH:
        raise ValueError(f"it makes texts up to {growth:.0e} times as long")
    added, vocabulary = data.get("added_tokens") or [], data["model"]["vocab"]
    size = known = len(vocabulary)
    if isinstance(vocabulary, dict):  # Unigram has a list, in the order of the numbers
        size = max(vocabulary.values(), default=-1) + 1
        used = set(vocabulary.values())
        inside = {t["content"]: t["id"] for t in added if t["id"] < size and t["id"] not in used}
        vocabulary |= {name: number for name, number in inside.items() if name not in vocabulary}
        _fill_gaps(vocabulary)
    numbers = {token["id"] for token in added}
    _require_dense(max(numbers, default=0), len(vocabulary) + len(added))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    gaps = set(range(size, max(numbers, default=0))) - numbers
    fillers = [{"id": n, "content": _filler(n), "special": True, **flags} for n in gaps]
    ordered = sorted([*added, *fillers], key=lambda token: token["id"])
    if ordered == added and len(vocabulary) == known:
        return Tokenizer.from_buffer(content)
    return Tokenizer.from_str(json.dumps(data | {"added_tokens": ordered}))


def _fill_gaps(vocabulary: dict[str, int]) -> None:
    """Give each number below the largest a token."""
    largest = max(vocabulary.values(), default=0)
    _require_dense(largest, len(vocabulary))
    gaps = set(range(largest)) - set(vocabulary.values())
    vocabulary |= {_filler(number): number for number in gaps}


def _require_dense(largest: int, count: int) -> None:
    """Raise ValueError for numbers so large that filling the gaps below them would take the
    memory."""
    if largest > 8 * count + 100_000:
        raise ValueError(f"it numbers {count:,} tokens up to {largest:,}")


def _growth(part: Any) -> float:
    """The product of the lengths of all replacements: how often a text may become as long."""
    if isinstance(part, list):
        return math.prod(map(_growth, part))
    if not isinstance(part, dict):
        return 1.0
    own = part.get("content", part.get("prepend", ""))
    return max(1, len(own)) * _growth(list(part.values()))


def _filler(number: int) -> str:
    """A token that no text has."""
    return f"[no token {number}]"


def special_names(folder: Path) -> dict[str, str]:
    """Role → name of the special tokens in a folder's files that are not named as in BERT. Raises
    ConfigError for a file that is not JSON."""
    found: dict[str, str] = {}
    for name in (SETTINGS, "special_tokens_map.json"):
        given = read_object(folder / name)
        for key, role in KEYS.items():
            token = given.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[role] = token
    return {role: token for role, token in found.items() if token != ROLES[role]}


def without_spaces_at_han(text: str) -> str:
    """A decoded text without the spaces beside Chinese characters and signs, which WordPiece puts
    there."""
    return _SPACES_AT_HAN.sub("", text)


def adds_spaces_at_han(tokenizer: Tokenizer) -> bool:
    """Whether decoded texts are read through `without_spaces_at_han`."""
    return isinstance(tokenizer.decoder, decoders.WordPiece)


def ends_with_han(text: str) -> bool:
    """Whether a space after it is one of those beside Chinese characters and signs."""
    return re.search(f"{_HAN}$", text) is not None


def load_tokenizer(path: str | Path, special: Mapping[str, str] | None = None) -> Tokenizer:
    """The tokenizer of a folder with `tokenizer.json`, `vocab.txt` (BERT's WordPiece), or
    `vocab.json` and `merges.txt` (byte-level BPE), of one of these files, or of a model's folder.

    Special tokens that it lacks are added at the end. `special`: role → name where it is not as in
    BERT. Raises ConfigError for a tokenizer that is absent or cannot be read.
    """
    path = Path(path).expanduser()
    model = f"{ASSETS_FOLDER}/{tokenizer_asset(Modality.TEXT)}"
    names = ("tokenizer.json", "vocab.txt", model, "vocab.json")
    candidates = [path / name for name in names] if path.is_dir() else [path]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        remedy = (
            "give a folder with tokenizer.json, vocab.txt, or vocab.json and merges.txt, one of"
            " these files, or a model folder that has a tokenizer"
        )
        raise ConfigError(f"tokenizer {path}: no such file; {remedy}")
    with reading(f"tokenizer {file}", LIBRARY):
        return _with_special_tokens(_read(file), special)


def _read(file: Path) -> Tokenizer:
    if file.name.endswith(("vocab.json", "merges.txt")):
        return _from_merges(file)
    return _from_vocabulary(file) if file.suffix == ".txt" else from_json(file.read_bytes())


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


def _bpe(model: models.BPE, lowercase: bool, add_prefix_space: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _wordpiece(
    vocabulary: dict[str, int], lowercase: bool, accents: bool | None = None, han: bool = True
) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(True, han, accents, lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _from_vocabulary(file: Path) -> Tokenizer:
    """BERT's WordPiece. The number of a token is that of its line; of several lines the last."""
    given = read_object(file.with_name(SETTINGS))
    vocabulary = {token: number for number, token in enumerate(read_lines(file))}
    _fill_gaps(vocabulary)
    return _wordpiece(
        vocabulary,
        given.get("do_lower_case", True),
        given.get("strip_accents"),
        given.get("tokenize_chinese_chars", True),
    )


def _from_merges(file: Path) -> Tokenizer:
    """Byte-level BPE (GPT-2). A folder that names the class of its tokenizer, or its model, is read
    by that class."""
    prefix = file.name.removesuffix("vocab.json").removesuffix("merges.txt")
    names, merges = (file.with_name(f"{prefix}{name}") for name in ("vocab.json", "merges.txt"))
    if absent := [one.name for one in (names, merges) if not one.is_file()]:
        raise ConfigError(f"tokenizer {file}: byte-level BPE needs {absent[0]} beside it")
    given = read_object(file.with_name(SETTINGS))
    if "tokenizer_class" in given or "model_type" in read_object(file.with_name("config.json")):
        return from_json(convert_older(file.parent))
    vocabulary = json.loads(names.read_bytes())
    _fill_gaps(vocabulary)
    lines = (line for line in read_lines(merges) if line and not line.startswith("#version"))
    pairs = (line.split(" ") for line in lines)
    model = models.BPE(vocabulary, [(first, second) for first, second in pairs])
    return _bpe(model, False, given.get("add_prefix_space", False))


def convert_older(folder: Path) -> bytes:
    """What Transformers makes of the files of an older tokenizer, as `tokenizer.json`. Raises as
    `read_with_transformers`."""
    return read_with_transformers(folder).backend_tokenizer.to_str().encode()


def read_with_transformers(folder: Path) -> Any:
    """The tokenizer that Transformers makes of a folder's files. Raises ConfigError without the
    libraries that it needs."""
    try:
        from transformers import AutoTokenizer  # an optional extra

        if any(folder.glob("*.model")):
            import_module("sentencepiece")  # without it, Transformers asks for another library
    except ModuleNotFoundError as error:
        remedy = "pip install 'skillweave[hf]', or give a tokenizer.json"
        raise ConfigError(f"tokenizer {folder}: {error}; {remedy}") from None
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


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
    tokenizer.encode("𓀀")  # raises where a model has no token for unknown words
    return tokenizer

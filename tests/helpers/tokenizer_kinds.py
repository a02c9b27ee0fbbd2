"""A small tokenizer of each kind that texts are written with."""

from __future__ import annotations

import string
from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
PIECES = [*string.printable.replace(" ", "").strip(), "笑", "脸", "é", "the", "hello", "in", "ing"]


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}


def byte_level() -> Tokenizer:
    """GPT-2: characters that stand for bytes."""
    pieces = [*sorted(ByteLevel.alphabet()), "he", "Ġh", "Ġhe"]
    merges = [("h", "e"), ("Ġ", "h"), ("Ġ", "he")]
    tokenizer = Tokenizer(models.BPE(_numbered(pieces), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def wordpiece() -> Tokenizer:
    """BERT: a space before each token without ##."""
    pieces = [form for piece in PIECES for form in (piece, f"##{piece}")]
    tokenizer = Tokenizer(models.WordPiece(_numbered([*pieces, "'s"]), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def metaspace() -> Tokenizer:
    """T5: a space is ▁, and the first of a text stands for nothing."""
    pieces = [form for piece in ["▁", *PIECES] for form in (piece, f"▁{piece}")]
    scores = [(piece, -1.0 / len(piece)) for piece in _numbered(pieces)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def byte_fallback() -> Tokenizer:
    """LLaMA: ▁ for spaces, and bytes for unknown characters."""
    pieces = [*(f"<0x{i:02X}>" for i in range(256)), "▁", *string.ascii_letters, "he", "▁he", "▁▁"]
    merges = [("h", "e"), ("▁", "he"), ("▁", "▁")]
    tokenizer = Tokenizer(models.BPE(_numbered(pieces), merges, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def whole_words() -> Tokenizer:
    """Words and signs with a space between any two."""
    tokenizer = Tokenizer(models.WordLevel(_numbered(PIECES), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


KINDS: list[Callable[[], Tokenizer]] = [
    byte_level,
    wordpiece,
    metaspace,
    byte_fallback,
    whole_words,
]


def with_special(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with its special tokens known as such."""
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer

"""What each token of a vocabulary adds to a text, in bytes."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from skillweave.config.base import ConfigError

ALPHABET = sorted(ByteLevel.alphabet())
PRINTED = [character for character in ALPHABET if ord(character) < 256]
BYTE_LEVEL = {character: ord(character) for character in PRINTED} | dict(
    zip(
        ALPHABET[len(PRINTED) :],
        (byte for byte in range(256) if chr(byte) not in PRINTED),
        strict=True,
    )
)
"""Character of byte-level BPE → byte: itself where it can be printed, else one above 255, in the
order of the bytes (GPT-2)."""
BYTE = re.compile(r"<0x([89A-F][0-9A-F])>")
"""A token of byte fallback that is no character by itself."""
SAMPLE = 200


def token_bytes(tokenizer: Tokenizer, special: Iterable[int]) -> tuple[list[bytes], list[bytes]]:
    """Of each token id, what it adds to a decoded text at its beginning, and after other tokens.

    The bytes of the tokens of a text, joined, are the text. b"" for `special` tokens, of which a
    text has nothing. Raises ConfigError for a tokenizer where a token's part depends on others.
    """
    decoder, size = tokenizer.decoder, tokenizer.get_vocab_size()
    joined = " ".join if decoder is None else decoder.decode
    absent = set(special)
    names = {i: tokenizer.id_to_token(i) or "" for i in range(size) if i not in absent}
    byte_level = joined(["a", "Ġ"]) == "a "
    byte_fallback = joined(["a", "<0x41>"]) == "aA"

    def part(name: str, before: list[str]) -> bytes:
        if byte_level:
            known = all(character in BYTE_LEVEL for character in name)
            return bytes(BYTE_LEVEL[c] for c in name) if known else name.encode()
        if byte_fallback and (byte := BYTE.fullmatch(name)):
            return bytes.fromhex(byte[1])
        return joined([*before, name]).encode()[len(before) :]

    later = [part(names[i], ["a"]) if i in names else b"" for i in range(size)]
    first = (
        later if byte_level else [part(names[i], []) if i in names else b"" for i in range(size)]
    )
    # a wrong byte shows differently in each decoder
    some = [i for i in names if byte_level or not BYTE.fullmatch(names[i])]
    some = random.Random(0).sample(some, min(SAMPLE, len(some)))
    some = [i for i in some for _ in range(2)]
    text = b"".join([first[some[0]], *(later[i] for i in some[1:])]) if some else b""
    if text.decode("utf-8", "replace") != joined([names[i] for i in some]):
        raise ConfigError(
            f"the tokenizer's decoder ({type(decoder).__name__}) does not join tokens one by one,"
            " so texts cannot follow a regex, json_schema or grammar; give choices instead"
        )
    return first, later

"""The bytes of the tokens of a text, joined, are the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_kinds import KINDS, byte_fallback, byte_level, with_special, wordpiece
from tokenizers import Tokenizer, decoders, models

from skillweave.config import ConfigError
from skillweave.data.processors.token_bytes import BYTE_LEVEL, token_bytes

TOKENIZERS = [with_special(build()) for build in KINDS]
SPECIAL = range(4)
BYTES = [token_bytes(one, SPECIAL) for one in TOKENIZERS]
TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("  he笑脸.,'s#▁Ġ")))


def joined(number: int, ids: list[int]) -> bytes:
    first, later = BYTES[number]
    return b"".join([first[i] for i in ids[:1]] + [later[i] for i in ids[1:]])


@given(st.sampled_from(range(len(KINDS))), TEXTS)
def test_of_a_text(number: int, text: str) -> None:
    tokenizer = TOKENIZERS[number]
    ids = [i for i in tokenizer.encode(text, add_special_tokens=False).ids if i not in SPECIAL]
    assert joined(number, ids).decode() == tokenizer.decode(ids)
    if KINDS[number] in (byte_level, byte_fallback):
        assert tokenizer.decode(ids) == text


@given(st.sampled_from(range(len(KINDS))), st.data())
def test_of_tokens_in_any_order(number: int, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[number]
    known = range(len(SPECIAL), tokenizer.get_vocab_size())
    if KINDS[number] is byte_fallback:  # which writes a sign for each byte of no character
        known = [i for i in known if BYTES[number][1][i].isascii()]
    ids = data.draw(st.lists(st.sampled_from(known)))
    assert joined(number, ids).decode("utf-8", "replace") == tokenizer.decode(ids)


def test_known_tokens() -> None:
    number = KINDS.index(wordpiece)
    first, later = BYTES[number]
    for token, begins, follows in [
        ("the", b"the", b" the"),
        ("##ing", b"##ing", b"ing"),
        (".", b".", b"."),
        ("笑", "笑".encode(), " 笑".encode()),
        ("<s>", b"", b""),
    ]:
        token_id = TOKENIZERS[number].token_to_id(token)
        assert (first[token_id], later[token_id]) == (begins, follows)


def test_characters_of_byte_level() -> None:
    assert sorted(BYTE_LEVEL.values()) == list(range(256))
    assert (BYTE_LEVEL["Ġ"], BYTE_LEVEL["Ċ"], BYTE_LEVEL["a"]) == (0x20, 0x0A, 0x61)


@pytest.mark.parametrize("decoder", [decoders.BPEDecoder(), decoders.CTC()])
def test_a_decoder_where_tokens_depend_on_each_other(decoder: object) -> None:
    vocabulary = {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoder
    with pytest.raises(ConfigError, match="give choices instead"):
        token_bytes(tokenizer, [])

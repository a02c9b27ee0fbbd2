import contextlib
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skillweave.batch import Modality
from skillweave.config.data import AugmentConfig
from skillweave.config.streams import (
    CodeStream,
    LoadedTokenizerConfig,
    TextStream,
    TrainedTokenizerConfig,
)
from skillweave.data.processors import BadInput, read_tokenizer, train_tokenizer
from skillweave.data.processors.text import TextProcessor

CLS, SEP, MASK, CLS_CODE = 2, 3, 4, 5
TOKENIZER = train_tokenizer(
    ["你好世界", "def add(x, y): return x + y", "mask [ ] cls"] * 3, TrainedTokenizerConfig(), 200
)
TEXT = TextProcessor(TextStream(max_length=16), TOKENIZER)
CODE = TextProcessor(CodeStream(max_length=16), TOKENIZER, Modality.CODE)


def pieces(features):
    return [TOKENIZER.id_to_token(i) for i in features.data.tolist()]


def test_each_han_character_is_a_piece_after_cls():
    features = TEXT("你好世界")
    assert pieces(features) == ["[CLS]", "你", "好", "世", "界"]
    assert features.length == 5 and features.data.dtype == torch.int64


def test_code_begins_with_its_own_token_and_may_end_with_a_separator():
    code = CODE("return x", separator=True).data.tolist()
    assert code[0] == CLS_CODE and code[-1] == SEP
    text = TEXT("return x", cls=False).data.tolist()
    assert text == code[1:-1]


@pytest.mark.parametrize(
    ("cls", "separator"), [(True, False), (False, False), (True, True), (False, True)]
)
def test_long_text_is_cut_to_the_stream_s_length_special_tokens_included(cls, separator):
    features = TEXT("你好世界" * 10_000, cls=cls, separator=separator)
    assert features.length == len(features.data) == 16
    assert (features.data[-1] == SEP) == separator
    assert TEXT("你好世界" * 9, max_length=7).length == 7
    assert TEXT("你好世界" * 9, max_length=99).length == 16


def test_a_text_is_filled_up_with_padding_that_counts_as_tokens():
    processor = TextProcessor(TextStream(max_length=16, pad_to_max_length=True), TOKENIZER)
    features, plain = processor("你好世界"), TEXT("你好世界").data.tolist()
    assert features.length == 16 and features.data.tolist() == plain + [0] * 11
    assert processor("你好世界" * 9).data.tolist() == TEXT("你好世界" * 9).data.tolist()


def test_special_tokens_spelt_out_in_a_text_are_plain_text():
    for processor in (TEXT, pickle.loads(pickle.dumps(TEXT))):
        ids = processor("mask [MASK] [SEP] [CLS_code]").data.tolist()[1:]
        assert not {CLS, SEP, MASK, CLS_CODE} & set(ids)


def test_special_tokens_of_a_chat_template_are_parsed_on_request():
    tokenizer = read_tokenizer(TEXT.tokenizer.to_str().encode())
    tokenizer.add_special_tokens(["<|im_start|>"])
    mark, text = tokenizer.token_to_id("<|im_start|>"), "<|im_start|>mask[SEP]"
    stream = TextStream(tokenizer=LoadedTokenizerConfig(parse_special=True))
    processor = TextProcessor(stream, tokenizer)
    word = TEXT.encode("mask").ids
    for parsed in (processor, pickle.loads(pickle.dumps(processor))):
        assert parsed(text).data.tolist() == [CLS, mark, *word, SEP]
        assert mark in parsed.special_ids  # masking leaves it alone
    shown = processor.fingerprint
    plain = TextProcessor(TextStream(), tokenizer)
    assert mark not in plain(text).data.tolist()
    assert plain.fingerprint != shown  # shards of one are not those of the other


WORDS = st.lists(st.sampled_from(["你", "a", "好", "cls", "x"]), min_size=1, max_size=30)


@given(WORDS, WORDS, st.integers(0, 2))
def test_a_text_of_which_only_the_beginning_is_read_says_so(first, second, spaces):
    text, other = (" " * spaces + " ".join(words) for words in (first, second))
    count, rest = len(TEXT.encode(text).ids), len(TEXT.encode(other).ids)
    assert TEXT(text).truncated == (count > 15)  # 16 positions, one of them [CLS]
    assert TEXT(text, max_length=4).truncated == (count > 3)
    pair = TEXT.pair(text, other)
    assert any(span.truncated for span in pair) == (count + rest > 13)
    assert sum(span.length for span in pair) == min(count + rest, 13) + 3


@pytest.mark.parametrize(
    "value",
    [
        "",
        "  \n\t",
        "\u200b",
        b"",
        b"\xff\xfe\x00",
        "half \ud800 pair",
        None,
        3,
        float("nan"),
        ["a"],
    ],
)
def test_what_is_no_text_is_bad_input(value):
    with pytest.raises(BadInput):
        TEXT(value)


def test_files_are_read_as_utf8(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("return 你", "utf-8")
    want = TEXT("return 你").data.tolist()
    for value in (
        file,
        file.read_bytes(),
        {"path": str(file)},
        {"bytes": file.read_bytes(), "path": None},
    ):
        assert TEXT(value).data.tolist() == want


def test_word_dropout_masks_about_its_share_of_the_pieces_and_no_special_token():
    stream = TextStream(max_length=512)
    processor = TextProcessor(stream, TOKENIZER, augment=AugmentConfig(word_dropout=0.25))
    text = "你好世界" * 200
    plain, noisy = processor(text), processor(text, np.random.default_rng(0), separator=True)
    assert noisy.data[0] == CLS and noisy.data[-1] == SEP
    masked = noisy.data[1:-1] == MASK
    # four standard deviations
    assert abs(masked.float().mean() - 0.25) < 4 * (0.25 * 0.75 / 510) ** 0.5
    assert torch.equal(noisy.data[1:-1][~masked], plain.data[1:511][~masked])
    assert torch.equal(processor(text).data, plain.data)


@given(st.text(), st.integers(0, 2**32 - 1))
def test_any_text_gives_ids_or_bad_input_and_a_seed_gives_the_same(text, seed):
    processor = TextProcessor(
        TextStream(max_length=16), TOKENIZER, augment=AugmentConfig(word_dropout=0.5)
    )
    try:
        first = processor(text, np.random.default_rng(seed))
    except BadInput:
        return
    assert torch.equal(first.data, processor(text, np.random.default_rng(seed)).data)
    assert 2 <= first.length == len(first.data) <= 16
    assert first.data.min() >= 0 and first.data.max() < TOKENIZER.get_vocab_size()


@given(st.binary())
def test_any_bytes_give_ids_or_bad_input(data):
    with contextlib.suppress(BadInput):
        TEXT(data)

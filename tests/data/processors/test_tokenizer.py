import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from skillweave.batch import Modality
from skillweave.config.base import ConfigError
from skillweave.config.streams import LoadedTokenizerConfig, TextStream, TrainedTokenizerConfig
from skillweave.data.processors import load_tokenizer, tokenizer_asset, train_tokenizer
from skillweave.data.processors.text import TextProcessor
from skillweave.data.processors.tokenizer import (
    SPECIAL_TOKENS,
    read_tokenizer,
    special_names,
    without_spaces_at_han,
)

TEXTS = [
    "The cat sat on the mat.",
    "The dog sat on the log.",
    "一个笑脸",
    "def add(x, y): return x + y",
] * 3


def in_order(tokenizer):
    return sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_special_tokens_come_first(kind):
    tokenizer = train_tokenizer(TEXTS, TrainedTokenizerConfig(kind=kind), 400)
    assert in_order(tokenizer)[:6] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[CLS_code]"]
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))


def test_frequent_words_become_pieces_and_case_follows_the_setting():
    folded = train_tokenizer(TEXTS, TrainedTokenizerConfig(), 400)
    assert folded.encode("The THE sat").tokens == ["the", "the", "sat"]
    kept = train_tokenizer(TEXTS, TrainedTokenizerConfig(lowercase=False), 400)
    assert kept.encode("The").tokens == ["The"]
    assert "THE" not in kept.get_vocab()


def test_min_frequency_keeps_rare_words_in_pieces():
    tokenizer = train_tokenizer(
        ["often often often rarely"], TrainedTokenizerConfig(min_frequency=3), 400
    )
    assert "often" in tokenizer.get_vocab() and "rarely" not in tokenizer.get_vocab()


def test_byte_level_bpe_loses_nothing():
    tokenizer = train_tokenizer(TEXTS, TrainedTokenizerConfig(kind="bpe", lowercase=False), 300)
    text = "Ünseen 文字 \t x\n  y 🙂"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=6), st.integers(8, 60))
def test_a_vocabulary_is_never_larger_than_asked(texts, size):
    try:
        tokenizer = train_tokenizer(texts, TrainedTokenizerConfig(min_frequency=1), size)
    except ConfigError:
        return
    assert tokenizer.get_vocab_size() <= size


def test_with_little_room_the_commonest_characters_stay():
    tokenizer = train_tokenizer(["a a a b b c"], TrainedTokenizerConfig(), 8)
    assert in_order(tokenizer)[6:] == ["a", "b"]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_training_gives_the_same_in_every_process(kind):
    # Ties abound in these texts; the library's own order of the alphabet differs between processes.
    script = (
        "import hashlib, random\n"
        "from skillweave.config.streams import LoadedTokenizerConfig, TrainedTokenizerConfig\n"
        "from skillweave.data.processors import train_tokenizer\n"
        "draw = random.Random(0)\n"
        "texts = [''.join(draw.choice('abcdefghij ') for _ in range(60)) for _ in range(60)]\n"
        f"tokenizer = train_tokenizer(texts, TrainedTokenizerConfig(kind={kind!r}), 500)\n"
        "print(hashlib.sha256(tokenizer.to_str().encode()).hexdigest())\n"
    )
    runs = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


@pytest.mark.parametrize("texts", [[], [""], ["  ", "\n"], ["\ud800"]])
def test_no_text_is_an_error(texts):
    with pytest.raises(ConfigError, match="no text"):
        train_tokenizer(texts, TrainedTokenizerConfig(), 100)


@pytest.mark.parametrize(("kind", "size"), [("bpe", 200), ("wordpiece", 6)])
def test_too_small_a_vocabulary_is_an_error(kind, size):
    with pytest.raises(ConfigError, match=f"vocabulary {size}"):
        train_tokenizer(TEXTS, TrainedTokenizerConfig(kind=kind), size)


def test_half_a_surrogate_pair_does_not_stop_training():
    assert "好" in train_tokenizer(["好\ud800", "好"], TrainedTokenizerConfig(), 100).get_vocab()


def test_an_asset_holds_the_tokenizer():
    tokenizer = train_tokenizer(TEXTS, TrainedTokenizerConfig(), 400)
    again = read_tokenizer(tokenizer.to_str().encode())
    text = "The cat [MASK] 一个"
    assert again.encode(text).ids == tokenizer.encode(text).ids
    assert tokenizer_asset(Modality.TEXT) != tokenizer_asset(Modality.CODE)


def test_a_folder_is_loaded_and_lacking_special_tokens_are_added(tmp_path):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "你", "好", "a", "##b"]
    plain = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    plain.enable_truncation(3)
    plain.enable_padding(length=8)
    plain.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        tokenizer = load_tokenizer(path)
        assert tokenizer.get_vocab_size() == 10 and tokenizer.token_to_id("[CLS_code]") == 9
        assert tokenizer.encode("ab").ids == [7, 8]


def test_a_vocabulary_file_is_read_as_bert_does(tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "你", "好", "a", "##b"]), "utf-8"
    )
    assert load_tokenizer(tmp_path).encode("你好AB").ids == [5, 6, 7, 8]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert load_tokenizer(tmp_path).encode("AB").tokens == ["[UNK]"]


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_special_tokens_are_those_of_the_processors():
    assert len(set(SPECIAL_TOKENS)) == 6


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b"]
"""Tokens of a tokenizer whose special tokens have other names."""


def with_other_names(folder):
    model = models.WordLevel({piece: i for i, piece in enumerate(ROBERTA)}, unk_token="<unk>")
    Tokenizer(model).save(str(folder / "tokenizer.json"))
    names = {
        "bos_token": "<s>",
        "cls_token": {"content": "<s>"},
        "sep_token": "</s>",
        "mask_token": "<mask>",
    }
    (folder / "special_tokens_map.json").write_text(
        json.dumps({**names, "pad_token": "<pad>", "unk_token": "<unk>"})
    )
    return {"pad": "<pad>", "unknown": "<unk>", "cls": "<s>", "separator": "</s>", "mask": "<mask>"}


def test_names_of_special_tokens_are_those_of_the_folder(tmp_path):
    names = with_other_names(tmp_path)
    assert special_names(tmp_path) == names
    tokenizer = load_tokenizer(tmp_path, names)
    assert tokenizer.get_vocab_size() == 8  # [CLS_code] alone was lacking
    stream = TextStream(tokenizer=LoadedTokenizerConfig(special=names))
    processor = TextProcessor(stream, tokenizer)
    assert processor("a", separator=True).data.tolist() == [0, 5, 2]
    assert (processor.mask, processor.special_ids) == (4, {0, 1, 2, 3, 4, 7})
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>"})
    )
    assert special_names(tmp_path) == {"cls": "<s>", "separator": "</s>"}
    (tmp_path / "special_tokens_map.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        special_names(tmp_path)


def test_an_asset_gets_no_pieces_that_its_model_has_no_words_for(tmp_path):
    with_other_names(tmp_path)
    tokenizer = read_tokenizer((tmp_path / "tokenizer.json").read_bytes())
    assert tokenizer.get_vocab_size() == len(ROBERTA)
    processor = TextProcessor(
        TextStream(tokenizer=LoadedTokenizerConfig(special={"cls": "<s>"})), tokenizer
    )
    assert processor("b").data.tolist() == [0, 6]
    with pytest.raises(
        ConfigError, match=r"the tokenizer has no '\[MASK\]', which the task needs; name it under"
    ):
        processor.mask  # noqa: B018


LINE_ENDS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]
"""What `str.splitlines` takes for ends of lines."""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_token_s_id_is_its_line_whatever_the_tokens_are(tmp_path, end):
    transformers = pytest.importorskip("transformers")
    tokens = [*SPECIAL_TOKENS[:5], "a", *LINE_ENDS, "", "好", "坏", "a", "书"]
    (tmp_path / "vocab.txt").write_bytes(end.join([*tokens, ""]).encode())
    tokenizer = load_tokenizer(tmp_path)
    theirs = transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt"))
    for token in ("好", "坏", "a", "书", "[MASK]"):
        assert tokenizer.token_to_id(token) == theirs.convert_tokens_to_ids(token)
    assert tokenizer.token_to_id("a") == 17 and tokenizer.token_to_id("书") == 18
    assert_dense(tokenizer, 20)


def assert_dense(tokenizer, size):
    """Each number below `size` has one token."""
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    assert tokenizer.get_vocab_size() == size


@given(
    st.sets(st.integers(0, 40), min_size=2, max_size=8),
    st.sets(st.integers(0, 60), max_size=6),
    st.sampled_from([models.WordPiece, models.BPE, models.WordLevel, models.Unigram]),
)
def test_numbers_with_gaps_stay_and_are_never_shared(numbers, more, kind):
    vocabulary = {chr(ord("一") + number): number for number in numbers}
    if kind is models.Unigram:
        vocabulary = {chr(ord("一") + number): number for number in range(len(numbers))}
        tokenizer = Tokenizer(models.Unigram([(name, -1.0) for name in vocabulary], unk_id=0))
    else:
        options = {"merges": []} if kind is models.BPE else {"unk_token": min(vocabulary)}
        tokenizer = Tokenizer(kind(vocabulary, **options))
    data = json.loads(tokenizer.to_str())
    added = {f"<{number}>": number for number in more - set(vocabulary.values())}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"] = [
        {"content": name, "id": number, "special": True, **flags} for name, number in added.items()
    ]
    expected = vocabulary | added
    again = read_tokenizer(json.dumps(data).encode())
    assert {name: again.token_to_id(name) for name in expected} == expected
    assert_dense(again, max(expected.values()) + 1)
    # what was written and read again is the same
    assert read_tokenizer(again.to_str().encode()).get_vocab() == again.get_vocab()


def test_a_vocabulary_with_gaps_gets_special_tokens_of_their_own(tmp_path):
    model = models.WordLevel({"[UNK]": 0, "a": 1, "b": 5}, unk_token="[UNK]")
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.token_to_id("b") == 5
    assert_dense(tokenizer, 6 + len(SPECIAL_TOKENS) - 1)


def save_bpe(folder):
    trained = train_tokenizer(TEXTS, TrainedTokenizerConfig(kind="bpe", lowercase=False), 300)
    folder.mkdir(exist_ok=True)
    trained.model.save(str(folder))
    return trained


def test_vocab_json_with_merges_is_byte_level_bpe(tmp_path):
    transformers = pytest.importorskip("transformers")
    trained = save_bpe(tmp_path / "plain")
    text = " The cat\u2028 一个 naïve"
    expected = trained.encode(text).ids
    for path in ("", "vocab.json", "merges.txt"):
        assert load_tokenizer(tmp_path / "plain" / path).encode(text).ids == expected
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path / "plain")
    assert theirs.encode(text) == expected
    (tmp_path / "plain" / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert load_tokenizer(tmp_path / "plain").encode("cat").ids == trained.encode(" cat").ids
    (tmp_path / "plain" / "merges.txt").unlink()
    with pytest.raises(ConfigError, match=r"byte-level BPE needs merges\.txt beside it"):
        load_tokenizer(tmp_path / "plain")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config", {"tokenizer_class": "RobertaTokenizer"}),
        ("config", {"model_type": "roberta"}),
    ],
)
def test_a_folder_that_names_its_class_is_read_by_it(tmp_path, name, content):
    transformers = pytest.importorskip("transformers")
    save_bpe(tmp_path)
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).encode("the cat").ids == theirs("the cat")["input_ids"]


@pytest.mark.parametrize(
    "settings", [{}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
)
def test_settings_beside_a_vocabulary_are_kept(tmp_path, settings):
    transformers = pytest.importorskip("transformers")
    tokens = [*SPECIAL_TOKENS[:5], "a", "é", "e", "##e", "##é", "好", "##好"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt"), **settings)
    for text in ("é", "Aé", "好好", "a好"):
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert load_tokenizer(tmp_path).encode(text, add_special_tokens=False).ids == expected


def damaged(**changes):
    data = json.loads(train_tokenizer(["so good"], TrainedTokenizerConfig(), 200).to_str())
    data["model"] |= changes.pop("model", {})
    return json.dumps(data | changes).encode()


TEN = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
FAR = {"id": 2**31, "content": "x", "special": True, "normalized": False}
FAR |= {"single_word": False, "lstrip": False, "rstrip": False}


@pytest.mark.parametrize(
    ("asset", "told"),
    [
        (damaged(normalizer={"type": "Sequence", "normalizers": [TEN] * 12}), "1e+12 times"),
        (damaged(decoder={"type": "Sequence", "decoders": [TEN] * 5}), "1e+05 times"),
        (damaged(added_tokens=[FAR]), "up to 2,147,483,648"),
        (damaged(model={"vocab": {"[UNK]": 0, "a": 10**9}}), "up to 1,000,000,000"),
        (damaged(model={"unk_token": "absent"}), "WordPiece error: Missing"),
        (damaged(model={"vocab": 5}), "TypeError"),
        (b"\xff", "byte 0xff is not UTF-8"),
        (b"{}", "KeyError"),
    ],
)
def test_a_damaged_tokenizer_is_an_error_with_its_name(asset, told):
    with pytest.raises(ConfigError, match=r"^text\.json: not a tokenizer of") as raised:
        read_tokenizer(asset, "text.json")
    assert told in str(raised.value)


def test_ordinary_replacements_are_no_bomb():
    marks = {**TEN, "pattern": {"String": " "}, "content": "▁"}
    read_tokenizer(damaged(normalizer={"type": "Sequence", "normalizers": [marks] * 30}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("春 眠 不 觉 晓 ，", "春眠不觉晓，"),
        ("two words 雪 two words", "two words雪two words"),
        ("no chinese, at all", "no chinese, at all"),
    ],
)
def test_spaces_beside_chinese_characters_are_left_out(text: str, expected: str) -> None:
    assert without_spaces_at_han(text) == expected

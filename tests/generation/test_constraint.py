"""Each answer satisfies its constraint, whatever the tokenizer and the search; texts that satisfy it
anyway stay."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_kinds import KINDS, byte_level, whole_words, with_special, wordpiece
from tokenizers import processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import skillweave as sw
from skillweave import cli
from skillweave.config import ConfigError
from skillweave.config.decoding import DecodingConfig
from skillweave.data.processors import BadInput
from skillweave.generation.constraint import Choices
from skillweave.inference import Predictor, TextWriter

END = 2
PROMPTS = ["hello", "a", "the in"]
SEARCHES: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 1, "num_return_sequences": 4},
    {"num_beams": 4, "num_return_sequences": 3},
    {"num_beams": 3, "renormalize_logits": True, "repetition_penalty": 1.3},
]
CHOICES = ["the", "hello", "the hello", "in the", "é", "the hello in"]
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["the", "hello"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "笑": {"type": "boolean"},
    },
    "required": ["kind", "count", "笑"],
    "additionalProperties": False,
}
GRAMMAR = 'start: greeting (" " greeting)~1..3\ngreeting: "hello" | "é" | /[a-c]{2}/\n'


def save(build: Any, place: Path) -> Path:
    """A language model of random weights with a tokenizer of this kind."""
    torch.manual_seed(0)
    tokenizer = with_special(build())
    begin = [("<s>", 0), ("</s>", END)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=begin)
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": END}
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size() + 5,  # padded, as on hardware
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.5,
        **sizes,
        **ids,
    )
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data[END] *= 4  # some texts end soon
    model.save_pretrained(place)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(place)
    return place


@pytest.fixture(scope="module", params=KINDS, ids=lambda build: build.__name__)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The kind of tokenizer, and the folder of a model with it."""
    return request.param, save(request.param, tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(byte_level, tmp_path_factory.mktemp("bytes"))


def texts(folder: Path, **settings: Any) -> list[str]:
    """All answers. Raises AssertionError for one that is unfinished."""
    writer = TextWriter(Predictor(folder), settings={"max_new_tokens": 160, **settings})
    answers = [answer for row in writer.write(PROMPTS) for answer in row]
    assert all("text" in answer for answer in answers), answers
    return [answer["text"] for answer in answers]


@pytest.mark.parametrize("search", SEARCHES, ids=str)
class TestEachAnswerSatisfies:
    def test_choices(self, kind: Any, search: dict[str, Any]) -> None:
        found = texts(kind[1], choices=CHOICES, **search)
        assert len(found) == 3 * search.get("num_return_sequences", 1)
        assert set(found) <= set(CHOICES)

    @pytest.mark.parametrize(
        "regex", [r"[0-9]{2,3}", r"(the|hello){1,2}(ing)?", r"[笑é]{1,4}!", ""]
    )
    def test_regex(self, kind: Any, search: dict[str, Any], regex: str) -> None:
        if kind[0] is whole_words and regex:
            regex = r"[a-z]( [0-9]){1,2}"  # it has no words without spaces between them
        assert all(re.fullmatch(regex, text) for text in texts(kind[1], regex=regex, **search))

    def test_json_schema(self, kind: Any, search: dict[str, Any]) -> None:
        if kind[0] is whole_words:
            pytest.skip("it has no words without spaces between them")
        for text in texts(kind[1], json_schema=SCHEMA, **search):
            found = json.loads(text)
            assert found.keys() == {"kind", "count", "笑"}
            assert found["kind"] in ("the", "hello") and 0 <= found["count"] <= 99

    def test_grammar(self, kind: Any, search: dict[str, Any]) -> None:
        if kind[0] is whole_words:
            pytest.skip("it has no words without spaces between them")
        pattern = r"(hello|é|[a-c]{2})( (hello|é|[a-c]{2})){1,3}"
        assert all(
            re.fullmatch(pattern, text) for text in texts(kind[1], grammar=GRAMMAR, **search)
        )


def test_there_are_no_spaces_beside_chinese_characters(tmp_path: Path) -> None:
    place = save(wordpiece, tmp_path)
    pattern = "笑脸(a b|the)脸,笑 ?c?"
    (found,) = sw.generate(place, ["a"], regex=pattern)
    assert re.fullmatch(pattern, found)
    (lost,) = TextWriter(Predictor(place), settings={"regex": "笑 脸", "max_new_tokens": 5}).write(
        "a"
    )
    assert "error" in lost[0]


def finished(folder: Path) -> dict[str, str]:
    """Prompts → what the model writes after them before it ends by itself."""
    predictor = Predictor(folder)
    size = TextWriter(predictor).tokenizer.get_vocab_size()
    silent = [0, 1, 3, *range(size, size + 5)]  # of which a text has nothing
    prompts = [f"{a} {b}" for a in "abcdefghij" for b in "aehx"]
    some, more = (
        sw.generate(predictor, prompts, max_new_tokens=n, suppress_tokens=silent) for n in (20, 30)
    )
    texts = zip(prompts, some, more, strict=True)
    return {p: a for p, a, b in texts if a == b and "�" not in a}


def test_a_text_that_satisfies_its_constraint_anyway_stays(kind: Any) -> None:
    free = finished(kind[1])
    assert len(set(free.values())) > 2
    patterns = "|".join(map(re.escape, free.values()))
    for constraint in [{"regex": "(?s).*"}, {"regex": patterns}, {"grammar": "start: /(?s:.*)/"}]:
        found = sw.generate(kind[1], list(free), max_new_tokens=60, **constraint)
        assert found == list(free.values())


def test_a_choice_that_is_written_anyway_stays(folder: Path) -> None:
    free = finished(folder)
    encode = TextWriter(Predictor(folder))._ids
    # another spelling of a text than the tokenizer's is no choice
    free = {p: t for p, t in free.items() if len(encode(t)) == len(t.encode())}
    assert len(set(free.values())) > 1
    found = sw.generate(folder, list(free), max_new_tokens=60, choices=[*free.values(), "x", "yy"])
    assert found == list(free.values())


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_search_finds_the_most_probable_choices(folder: Path, penalty: float) -> None:
    choices = ["a", "b", "ab", "abc", "hi", "hit", "x y", "笑", ""]
    writer = TextWriter(
        Predictor(folder),
        settings={
            "choices": choices,
            "num_beams": 12,
            "num_return_sequences": 12,
            "length_penalty": penalty,
        },
    )
    theirs = LlamaForCausalLM.from_pretrained(folder)
    for prompt, answers in zip(PROMPTS, writer.write(PROMPTS), strict=True):
        scores = {}
        for choice in choices:
            given = [0, *writer._ids(prompt)]
            ids = torch.tensor([*given, *(writer._ids(choice) if choice else []), END])
            log_p = theirs(ids[None]).logits[0, :-1].log_softmax(-1)
            own = log_p.gather(1, ids[1:, None])[len(given) - 1 :, 0]
            scores[choice] = (own.sum() / len(own) ** penalty).item()
        ordered = sorted(choices, key=lambda choice: -scores[choice])
        assert [answer["text"] for answer in answers] == ordered
        assert [answer["score"] for answer in answers] == pytest.approx(
            [scores[choice] for choice in ordered], rel=1e-4
        )


@given(st.sets(st.text("ahe ", max_size=5), min_size=1), st.data())
def test_the_tokens_that_may_follow(choices: set[str], data: st.DataObject) -> None:
    tokenizer = with_special(byte_level())
    size = tokenizer.get_vocab_size()
    processor: Any = SimpleNamespace(tokenizer=tokenizer, special_ids={END}, vocabulary=size)
    spelt = [(*tokenizer.encode(choice).ids, END) for choice in choices]
    one = data.draw(st.sampled_from(spelt))
    before = one[: data.draw(st.integers(0, len(one)))]
    after = {ids[len(before)] for ids in spelt if ids[: len(before)] == before < ids}
    allowed_V = Choices(list(choices), processor, [END]).allowed([before])[0]
    assert set(allowed_V.nonzero().flatten().tolist()) == after


def test_many_choices(folder: Path) -> None:
    choices = [f"{i * 7919 % 10**6:06d}{i % 7 * 'x'}" for i in range(100_000)]
    assert set(texts(folder, choices=choices, num_beams=3)) <= set(choices)


@pytest.mark.parametrize("search", SEARCHES[:3], ids=str)
def test_a_decoder_that_begins_with_a_given_token(tmp_path: Path, search: dict[str, Any]) -> None:
    torch.manual_seed(0)
    tokenizer = with_special(byte_level())
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    feed = {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 256}
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": END, "decoder_start_token_id": END}
    config = BartConfig(vocab_size=tokenizer.get_vocab_size(), **sizes, **heads, **feed, **ids)
    model = BartForConditionalGeneration(config).eval()
    model.generation_config.forced_bos_token_id = 0
    model.save_pretrained(tmp_path)
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(tmp_path)
    assert TextWriter(Predictor(tmp_path)).settings.forced_bos_token_id == 0
    assert set(texts(tmp_path, choices=["hello", "笑", "he"], **search)) <= {"hello", "笑", "he"}
    assert all(re.fullmatch("he[xé]{2}", t) for t in texts(tmp_path, regex="he[xé]{2}", **search))


def test_choices_that_are_the_same_to_the_model(tmp_path: Path) -> None:
    place = save(wordpiece, tmp_path)
    assert set(texts(place, choices=["the  the", "the the"])) == {"the  the"}


def test_a_stream_satisfies_it(folder: Path) -> None:
    pieces = list(sw.generate(folder, "a", stream=True, regex="[é笑]{3}(ab|c)"))
    assert re.fullmatch("[é笑]{3}(ab|c)", "".join(pieces)) and len(pieces) >= 4
    with pytest.raises(BadInput, match="raise max_new_tokens"):
        list(sw.generate(folder, "a", stream=True, regex="[ab]{9}", max_new_tokens=4))


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize(
    "constraint",
    [{"regex": "[a-z]{20}"}, {"choices": ["abcdefgh"]}, {"grammar": 'start: "a" start'}],
)
def test_an_answer_that_is_too_long_is_an_error(
    folder: Path, search: dict[str, Any], constraint: dict[str, Any]
) -> None:
    writer = TextWriter(Predictor(folder), settings={"max_new_tokens": 6, **constraint, **search})
    for answers in writer.write(PROMPTS):
        for answer in answers:
            assert answer.keys() == {"error"}
            assert f"no answer for {next(iter(constraint))} within 6 tokens" in answer["error"]


def test_penalties_that_forbid_all_that_the_constraint_allows(folder: Path) -> None:
    for search in ({}, {"num_beams": 2}, {"do_sample": True, "top_p": 0.5}):
        with pytest.raises(BadInput, match="no answer for regex"):
            sw.generate(folder, ["a"], regex="b+", bad_words=["b"], max_new_tokens=5, **search)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"choices": []}, "choices is empty; give at least one text"),
        ({"choices": ["a", "\ud800"]}, "not valid Unicode"),
        ({"choices": "yes"}, "choices"),
        ({"regex": "(a"}, "regex: .*unclosed group"),
        ({"regex": r"a(?=b)"}, "look-around.*is not supported"),
        ({"regex": r"[^\s\S]"}, "regex: no text .* satisfies it"),
        ({"grammar": "begin: /a/"}, "grammar: no start rule found"),
        ({"grammar": 'start: "a" | other'}, r"grammar: at 1\(8\): unknown name"),
        ({"grammar": "start: A\nA: /a/ & /b/"}, "grammar: no text .* satisfies it"),
        ({"json_schema": {"type": "strin"}}, "json_schema: .*Invalid type: strin"),
        ({"json_schema": {"properties": 5}}, "json_schema: .*properties"),
        ({"json_schema": {"allOf": [{"type": "string"}, {"type": "null"}]}}, "Unsatisfiable"),
        ({"json_schema": {"enum": []}}, "Unsatisfiable"),
        ({"json_schema": {"x-guidance": 5}}, "json_schema: not valid"),
        ({"json_schema": 5}, "json_schema"),
        ({"regex": "a\ud800"}, "regex: not valid"),
        ({"grammar": 'start: "\ud800"'}, "grammar: not valid"),
        ({"grammar": "start: <|eos|>"}, "grammar: panic"),
        ({"regex": "a", "choices": ["a"]}, "choices and regex both say"),
        ({"regex": "a", "stop_strings": ["a"]}, "leave one out"),
    ],
)
def test_constraints_that_cannot_be_used(folder: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        sw.generate(folder, ["hello"], **settings)


def test_a_choice_without_tokens(tmp_path: Path) -> None:
    place = save(wordpiece, tmp_path)
    with pytest.raises(ConfigError, match=r"no tokens for '☃'.*remove it"):
        sw.generate(place, ["hello"], choices=["the", "☃"])
    with pytest.raises(ConfigError, match="no text that the model's tokens can spell"):
        sw.generate(place, ["hello"], regex="☃")


def test_without_the_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"skillweave\[constraints\]"):
        sw.generate(folder, ["hello"], regex="a")
    assert sw.generate(folder, ["hello"], choices=["笑"]) == ["笑"]


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, text in [
        ("choices", "hi there\r\n\n笑\u2028!\n"),
        ("json-schema", json.dumps(SCHEMA)),
        ("grammar", GRAMMAR),
    ]:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8", newline="")
        assert cli.main(["generate", str(folder), "a", f"--{name}", str(file)]) == 0
        found = json.loads(capsys.readouterr().out)["text"]
        if name == "choices":
            assert found in ("hi there", "笑\u2028!")
        elif name == "grammar":
            assert re.fullmatch(r"(hello|é|[a-c]{2})( (hello|é|[a-c]{2})){1,3}", found)
        else:
            assert json.loads(found).keys() == set(SCHEMA["required"])
    assert cli.main(["generate", str(folder), "a", "--regex", "[xy]{3}"]) == 0
    assert re.fullmatch("[xy]{3}", json.loads(capsys.readouterr().out)["text"])
    (tmp_path / "empty").write_text("")
    for option, told in [("choices", "choices is empty"), ("json-schema", "not valid JSON")]:
        assert cli.main(["generate", str(folder), "a", f"--{option}", str(tmp_path / "empty")]) == 2
        assert told in capsys.readouterr().err
    assert cli.main(["generate", str(folder), "a", "--grammar", str(tmp_path / "none")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_constraint_of_settings() -> None:
    assert DecodingConfig().constraint is None
    assert DecodingConfig(regex="").constraint == "regex"

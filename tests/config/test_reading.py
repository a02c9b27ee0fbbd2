"""Parsing what others wrote: bounded, with one error that names the file."""

import pytest
import tokenizers
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skillweave.config import ConfigError
from skillweave.config.errors import reading
from skillweave.config.reading import MAX_DEPTH, lines_of, parse_json, parse_yaml, read_lines
from skillweave.recipe import read_recipe

ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ALIASES, "aliases stand for more than"),
        (MERGES, "aliases stand for more than"),
        ("a: &a [*a]", "contains it"),
        ("[" * 100_000, "levels deep"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "levels deep"),
        ("a" * 2**21, "at most"),
        ("date: 2024-13-45", "month"),
        ("a: [", "did not find expected node"),
        ("? [a]\n: b", "unhashable"),
        ("!!bool maybe", "maybe"),
        (b"a: \xd6\xd0", "byte 0xd6 is not UTF-8; save the file as UTF-8 (it may be GBK)"),
        (b"a: 1\nb: \x80", "line 2"),
    ],
)
def test_yaml(text, told):
    with pytest.raises(ConfigError) as raised:
        parse_yaml(text, "r.yaml")
    assert str(raised.value).startswith("r.yaml: not valid YAML: ") and told in str(raised.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 100 + "]" * 100, "{", b"\xff", "1" * 9999])
def test_json(text):
    with pytest.raises(ConfigError, match=r"^c\.json: not valid JSON: "):
        parse_json(text, "c.json")


def test_valid_texts_are_read_as_before():
    text = "a: &a {b: [1, 2.5, true, null, 2026-01-01]}\nc: *a\nd: {<<: *a, e: x}\n"
    assert parse_yaml(text, "") == yaml.safe_load(text)
    assert parse_yaml("", "") is None
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, true, null]}', "") == {"a": [1, 2.5, True, None]}


def test_a_panic_of_a_rust_library_is_an_error_of_the_file():
    class PanicException(BaseException):  # named as pyo3 names it
        pass

    told = r"^t\.json: not a tokenizer: "
    with pytest.raises(ConfigError, match=told), reading("t.json", "a tokenizer"):
        raise PanicException("called `Option::unwrap()`")
    with pytest.raises(ConfigError, match=told), reading("t.json", "a tokenizer"):
        tokenizers.Tokenizer.from_str("{}")


def test_errors_that_tell_enough_pass():
    for error in (ConfigError("t.json: a"), FileNotFoundError(2, "b", "c"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, reading("t.json", "a tokenizer"):
            raise error
        assert raised.value is error


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("training.optimizer.learning_rate=.inf", "finite"),
        ("training.optimizer.learning_rate=.nan", "finite"),
        ("training.seed=1180591620717411303424", "less than"),
        ("training.steps=1180591620717411303424", "less than"),
        ("training.steps=-1", "greater than 0"),
    ],
)
def test_numbers_that_no_setting_can_have(tmp_path, setting, told):
    file = tmp_path / "r.yaml"
    file.write_text(
        "model: {preset: bert-base}\ntasks: {masked_text: {data: {path: a.txt}}}\ntraining: {steps: 1}"
    )
    with pytest.raises(ConfigError, match=rf"training\.{setting[9:13]}.*{told}"):
        read_recipe(file, [setting])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab: {}#'\"", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_yaml_means_what_pyyaml_reads(value: object) -> None:
    text = yaml.safe_dump(value)
    assert parse_yaml(text, "here") == yaml.safe_load(text) == value


def test_a_merge_key_may_repeat_the_keys_that_it_merges() -> None:
    text = "base: &base {a: 1, b: 2}\nown: {<<: *base, b: 3}\n"
    assert parse_yaml(text, "here")["own"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    "text",
    [
        "tasks: {a: 1}\ntraining: 2\ntasks: {b: 1}\n",
        "model:\n  width: 3\n  tasks: 1\n  tasks: 2\n",
        "model: {tasks: 1, width: 2, tasks: 3}",
        "- 1\n- {tasks: 1, 'tasks': 2}\n",
    ],
)
def test_a_doubled_key_of_yaml_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"r\.yaml: .*'tasks' stands twice"):
        parse_yaml(text, "r.yaml")


@pytest.mark.parametrize(
    "text", ['{"tasks": {}, "tasks": {"a": 1}}', '{"model": [{"tasks": {}, "tasks": {"a": 1}}]}']
)
def test_a_doubled_key_of_json_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"m\.json: .*'tasks' stands twice"):
        parse_json(text, "m.json")


LINES = st.lists(st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"])))


@given(LINES, st.sampled_from(["\n", "\r\n"]))
def test_lines_end_with_line_feeds_alone(lines, end):
    text = "".join(line + end for line in lines)
    assert lines_of(text) == lines_of(text.encode()) == lines
    if lines and lines[-1]:
        assert lines_of(text.removesuffix(end)) == lines


def test_a_file_of_lines_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"words .*absent\.txt: no such file"):
        read_lines(tmp_path / "absent.txt", "words")
    (tmp_path / "gbk.txt").write_bytes("书\n".encode("gbk"))
    with pytest.raises(ConfigError, match=r"gbk\.txt: not a text file: line 1: byte 0xca"):
        read_lines(tmp_path / "gbk.txt")


def test_an_error_that_does_not_name_the_file_gets_its_name():
    with pytest.raises(ConfigError, match=r"^t\.json: a$"), reading("t.json", "a tokenizer"):
        raise ConfigError("a")

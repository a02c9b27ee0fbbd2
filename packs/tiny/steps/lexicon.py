"""English words to Chinese ones: CC-CEDICT read backwards, the most frequent words first."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from steps import sources

HAN = re.compile(r"[\u4e00-\u9fff]{1,6}")
RARE = re.compile(r"\((?:[^)]*\b(?:archaic|old|literary|dialect|classical|Tw|coll|slang)\b[^)]*)\)")
PROPER = re.compile(r"[A-Z]")
ARTICLE = re.compile(r"^(?:to|a|an|the) ")
NOTE = re.compile(r"\s*\([^)]*\)\s*")
VERB = 8.0
"""How much less a verb counts than a noun: names of pictures are nouns."""


def normal(gloss: str) -> str:
    """A gloss without its notes in brackets, its article and its `to`."""
    return ARTICLE.sub("", NOTE.sub(" ", gloss).strip().lower())


@cache
def frequencies(cache_folder: Path) -> dict[str, int]:
    """Chinese word → how often jieba's corpora have it."""
    archive = sources.fetch(sources.JIEBA, cache_folder)
    content = next(sources.members(archive, lambda name: name.endswith("jieba/dict.txt")))[1]
    lines = (line.split(" ") for line in content.decode().splitlines())
    return {word: int(count) for word, count, *_ in lines}


def entries(cache_folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(simplified word, pinyin, glosses) of the dictionary."""
    archive = sources.fetch(sources.CEDICT, cache_folder)
    name = "package/data/all.js"
    text = next(sources.members(archive, lambda member: member == name))[1].decode()
    for _, simplified, pinyin, glosses, *_ in json.loads(text.removeprefix("export default "))[
        "all"
    ]:
        yield simplified, pinyin, glosses if isinstance(glosses, list) else [glosses]


@cache
def lexicon(cache_folder: Path) -> dict[str, list[str]]:
    """English word or phrase → Chinese words of which it is a whole gloss, the likeliest first.

    A word counts by its frequency, and less where the gloss is a verb, rare or not its first
    meaning.
    """
    counts = frequencies(cache_folder)
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for word, pinyin, glosses in entries(cache_folder):
        if not HAN.fullmatch(word) or PROPER.match(pinyin):
            continue
        meanings = [part for gloss in glosses for part in gloss.split(";")]
        for place, meaning in enumerate(meanings):
            gloss = normal(meaning)
            score = (counts.get(word, 0) + 1) ** 0.5 / (1 + place) ** 2
            if RARE.search(meaning) or meaning.strip().startswith("to "):
                score /= VERB
            scores[gloss][word] = max(score, scores[gloss].get(word, 0.0))
    return {
        gloss: sorted(words, key=lambda word: (-words[word], word))
        for gloss, words in scores.items()
    }

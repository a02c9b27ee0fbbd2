"""texts-*.parquet and pairs-*.parquet: plain texts for masked words, and pairs of texts that belong
together."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
from quickstart.steps.common import Row, digest
from rich.progress import track

from . import dictionaries, documents, messages
from .dictionaries import Pair
from .locked import used_for
from .python_files import extracted
from .splits import in_order, with_splits

TEXT = (("text", pa.string()), ("source", pa.string()))
PAIR = (("text", pa.string()), ("second", pa.string()), ("source", pa.string()))
LONGEST = 600
SHORTEST = 12
DOCUMENTS_OF_PACKAGE = 1200

Plain = tuple[str, str]


def _documents(cache: Path, kind: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(group, entry) of docstrings and read-mes, with at most so many of one package, by hash."""
    for source in track(used_for(kind), "documentation"):
        found = [row for row in extracted(source, cache) if "title" in row]
        found.sort(key=lambda row: digest("document", source.name, row["module"], row["line"]))
        for row in found[:DOCUMENTS_OF_PACKAGE]:
            yield f"{source.name}:{row['module']}", row


def docstrings(cache: Path, kind: str = "code") -> Iterator[Plain]:
    """The first two paragraphs of docstrings, and sections of read-mes."""
    for group, row in _documents(cache, kind):
        yield group, f"{row['title']}\n{row['body']}".strip()


def docstring_pairs(cache: Path, kind: str = "code") -> Iterator[Pair]:
    """A docstring's first paragraph and the second, or a read-me's heading and what follows."""
    for group, row in _documents(cache, kind):
        if row["body"]:
            yield group, row["title"], row["body"]


def _joined(
    pairs: Callable[[Path], Iterator[Pair]], between: str
) -> Callable[[Path], Iterator[Plain]]:
    """Pairs as plain texts."""
    return lambda cache: (
        (group, f"{first}{between}{second}") for group, first, second in pairs(cache)
    )


def _second(pairs: Callable[[Path], Iterator[Pair]]) -> Callable[[Path], Iterator[Plain]]:
    return lambda cache: ((group, second) for group, _, second in pairs(cache))


def _first(pairs: Callable[[Path], Iterator[Pair]]) -> Callable[[Path], Iterator[Plain]]:
    return lambda cache: ((group, first) for group, first, _ in pairs(cache))


PLAIN: dict[str, Callable[[Path], Iterator[Plain]]] = {
    "cedict": _joined(dictionaries.chinese_english, " "),
    "wordnet": _joined(dictionaries.english_glosses, ": "),
    "wordnet-examples": dictionaries.english_examples,
    "chinese-words": _joined(dictionaries.chinese_glosses, "："),
    "xiehouyu": _joined(dictionaries.riddles, "——"),
    "hsk-zh": _first(dictionaries.sentences),
    "hsk-en": _second(dictionaries.sentences),
    "interface-zh": _second(dictionaries.interface),
    "help-zh": _first(documents.help_in_two_languages),
    "help-en": _second(documents.help_in_two_languages),
    "manuals": documents.manuals,
    "poems": documents.poems,
    "news": documents.news,
}
DOCUMENTATION: dict[str, Callable[[Path], Iterator[Plain]]] = {"docstrings": docstrings}
MORE_DOCUMENTATION: dict[str, Callable[[Path], Iterator[Plain]]] = {
    "docstrings": partial(docstrings, kind="code-more")
}
PAIRS: dict[str, Callable[[Path], Iterator[Pair]]] = {
    "cedict": dictionaries.chinese_english,
    "wordnet": dictionaries.english_glosses,
    "chinese-words": dictionaries.chinese_glosses,
    "xiehouyu": dictionaries.riddles,
    "hsk": dictionaries.sentences,
    "interface": dictionaries.interface,
    "help": documents.help_in_two_languages,
    "help-titles": documents.help_titles,
    "manuals": documents.manual_titles,
    "poems": documents.poem_titles,
    "couplets": documents.couplets,
}
DOCUMENTATION_PAIRS: dict[str, Callable[[Path], Iterator[Pair]]] = {"docstrings": docstring_pairs}
MORE_DOCUMENTATION_PAIRS: dict[str, Callable[[Path], Iterator[Pair]]] = {
    "docstrings": partial(docstring_pairs, kind="code-more")
}
TRANSLATIONS: dict[str, Callable[[Path], Iterator[Pair]]] = {"messages": messages.messages}
LIMITS = {"couplets": 15_000}
"""Most pairs of a source, by hash."""


def _texts(sources: Mapping[str, Callable[[Path], Iterator[Plain]]], cache: Path) -> list[Row]:
    """Every text once."""
    rows: dict[str, Row] = {}
    for source, read in sources.items():
        for group, text in read(cache):
            if len(text) >= SHORTEST:
                key = f"{digest('text', text):016x}"
                row = {
                    "key": key,
                    "group": f"{source}:{group}",
                    "text": text[:LONGEST],
                    "source": source,
                }
                rows.setdefault(key, row)
    return in_order(with_splits([*rows.values()]))


def _pairs(sources: Mapping[str, Callable[[Path], Iterator[Pair]]], cache: Path) -> list[Row]:
    """Every pair whose second text no other pair has, so that in a batch one answer is right."""
    seconds: set[str] = set()
    rows: list[Row] = []
    for source, read in sources.items():
        chosen = sorted(read(cache), key=lambda pair: digest("pair", *pair))
        for group, first, second in chosen[: LIMITS.get(source)]:
            first, second = first.strip()[:LONGEST], second.strip()[:LONGEST]
            folded = second.casefold()
            if not first or not second or folded in seconds or folded == first.casefold():
                continue
            seconds.add(folded)
            key = f"{source}:{digest('pair', first, second):016x}"
            rows.append(
                {
                    "key": key,
                    "group": f"{source}:{group}",
                    "text": first,
                    "second": second,
                    "source": source,
                }
            )
    return in_order(with_splits(rows))


def texts(cache: Path) -> list[Row]:
    """Dictionaries, sentences, poems, news, help and manuals."""
    return _texts(PLAIN, cache)


def documentation(cache: Path) -> list[Row]:
    """Docstrings and read-mes of the packages whose code is read."""
    return _texts(DOCUMENTATION, cache)


def pairs(cache: Path) -> list[Row]:
    """Words with glosses and translations, sentences in two languages, titles with texts."""
    return _pairs(PAIRS, cache)


def documentation_pairs(cache: Path) -> list[Row]:
    """The first paragraph of docstrings with the second, and headings with texts."""
    return _pairs(DOCUMENTATION_PAIRS, cache)


def more_documentation(cache: Path) -> list[Row]:
    """Docstrings and read-mes of further packages."""
    return _texts(MORE_DOCUMENTATION, cache)


def more_documentation_pairs(cache: Path) -> list[Row]:
    """The pairs of further packages' docstrings and read-mes."""
    return _pairs(MORE_DOCUMENTATION_PAIRS, cache)


def translations(cache: Path) -> list[Row]:
    """Messages of programs in English and Chinese."""
    return _pairs(TRANSLATIONS, cache)

"""Rules of thumb that tell running text from lists, menus and machine output: those of Gopher, C4
and FineWeb, with variants for Chinese.

Texts in Chinese and Japanese have no spaces between words, so limits in words become limits in
characters (`CHARACTERS_PER_WORD`), and other marks end sentences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from skillweave.config.base import ConfigError, Positive, Whole, nearest
from skillweave.config.reading import read_lines
from skillweave.corpus.step import STEPS, Drop, Result, Row, Step
from skillweave.corpus.tokens import (
    CHARACTERS_PER_WORD,
    SPACELESS,
    TOKEN,
    count_tokens,
    mostly_han,
    tokens_of,
)

Ratio = Annotated[float, Field(ge=0, le=1)]
STOP_WORDS = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "zh": ("的", "了", "是", "在", "和", "不", "有", "我", "这", "他", "也", "就", "与", "为"),
    "ja": ("の", "は", "が", "を", "に", "で", "と", "も"),
    "de": ("der", "die", "das", "und", "ist", "nicht", "mit", "von", "zu", "ein"),
    "fr": ("le", "la", "les", "de", "et", "est", "que", "dans", "pour", "une"),
    "es": ("el", "la", "de", "que", "y", "en", "los", "se", "por", "una"),
    "it": ("il", "la", "di", "che", "e", "per", "non", "una", "con", "sono"),
    "pt": ("o", "a", "de", "que", "e", "do", "da", "em", "para", "uma"),
    "ru": ("и", "в", "не", "на", "что", "с", "как", "это", "по", "для"),
}
"""Language → words that running text contains. The English ones are Gopher's (arXiv 2112.11446,
appendix A1)."""
TERMINAL = tuple(".!?\"'”’)…。！？；」』）：")
"""Marks that end a line of running text."""


def spaceless(row: Row) -> bool:
    """Whether a row's text is written without spaces between words."""
    language = row.get("language")
    return language in SPACELESS if language else mostly_han(row["text"])


def lines_of(text: str) -> list[str]:
    """The lines of a text that are not empty."""
    return [line for line in map(str.strip, text.split("\n")) if line]


@STEPS.register("gopher")
class Gopher(Step):
    """Gopher's rules of quality (arXiv 2112.11446, appendix A1)."""

    kind: Literal["gopher"] = "gopher"
    least_words: Whole = 50
    """The fewest words of a text."""
    most_words: Positive = 100_000
    """The most words."""
    word_length: tuple[float, float] = (3, 10)
    """Limits of the mean length of words, not for languages without spaces."""
    symbols: Ratio = 0.1
    """The most `#` and ellipses for each word."""
    bullet_lines: Ratio = 0.9
    """The largest share of lines that begin with a bullet."""
    ellipsis_lines: Ratio = 0.3
    """The largest share of lines that end with an ellipsis."""
    alphabetic_words: Ratio = 0.8
    """The smallest share of words with a letter."""
    least_stop_words: Whole = 2
    """How many different stop words of its language a text contains at least."""
    stop_words: dict[str, tuple[str, ...]] = {}
    """Language → its stop words, beside those that are built in (en, zh, ja, de, fr, es, it, pt,
    ru). A text in a language without a list is not tested for stop words."""
    languages: tuple[str, ...] = ()
    """Languages that must have a list of stop words; a missing one is an error before work
    begins."""

    def prepare(self) -> None:
        """Raise ConfigError for a language without a list."""
        require_lists(self.title, self.languages, {**STOP_WORDS, **self.stop_words}, "stop_words")

    def change(self, row: Row) -> Result:
        """The first rule that a text breaks."""
        text = row["text"]
        words = tokens_of(text)
        han = spaceless(row)
        count = len(words) / (CHARACTERS_PER_WORD if han else 1)
        if count < self.least_words:
            return Drop(f"under {self.least_words} words", f"{count:.0f}")
        if count > self.most_words:
            return Drop(f"over {self.most_words} words", f"{count:.0f}")
        mean = sum(map(len, words)) / len(words)
        if not han and not self.word_length[0] <= mean <= self.word_length[1]:
            return Drop("mean length of words", f"{mean:.1f}")
        symbols = text.count("#") + text.count("...") + len(re.findall("…+", text))
        if symbols > self.symbols * count:
            return Drop("symbols", f"{symbols / count:.2f} a word")
        lines = lines_of(text)
        bullets = sum(line.startswith(("•", "‣", "·", "●", "-", "*", "◦", "■")) for line in lines)
        if bullets > self.bullet_lines * len(lines):
            return Drop("bullets", f"{bullets} of {len(lines)} lines")
        ellipses = sum(line.endswith(("...", "…")) for line in lines)
        if ellipses > self.ellipsis_lines * len(lines):
            return Drop("lines that end with an ellipsis", f"{ellipses} of {len(lines)} lines")
        # Han numerals are letters, too
        others = sum(not any(map(str.isalpha, word)) for word in filter(str.isnumeric, words))
        if len(words) - others < self.alphabetic_words * len(words):
            return Drop("words without letters", f"{others} of {len(words)}")
        language = row.get("language") or ("zh" if han else None)
        listed = self.stop_words.get(language or "") or STOP_WORDS.get(language or "")
        if listed:
            found = {*listed} & {word.lower() for word in {*words}}
            if len(found) < self.least_stop_words:
                return Drop(f"under {self.least_stop_words} stop words", " ".join(sorted(found)))
        return None


@STEPS.register("c4")
class C4(Step):
    """C4's rules (arXiv 1910.10683, section 2.2): remove lines that are no sentences, and texts
    with placeholders or too few sentences."""

    kind: Literal["c4"] = "c4"
    least_sentences: Whole = 3
    """The fewest sentences of a text."""
    least_line_words: Whole = 3
    """The fewest words of a line; shorter lines are removed."""
    terminal_punctuation: bool = True
    """Remove lines without a mark at the end."""
    code: bool = True
    """Drop texts with a `{`, which are rather programs."""
    phrases: tuple[str, ...] = (
        "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
        "use cookies", "使用条款", "隐私政策", "服务协议", "版权所有", "备案号", "隱私權政策",
    )  # fmt: skip
    """Lines with one of these phrases are removed, and lines about JavaScript."""

    def change(self, row: Row) -> Result:
        """The text without such lines."""
        text = row["text"]
        lower = text.lower()
        if "lorem ipsum" in lower:
            return Drop("lorem ipsum")
        if self.code and "{" in text:
            return Drop("a curly bracket")
        least = math.ceil(self.least_line_words * (CHARACTERS_PER_WORD if spaceless(row) else 1))
        phrases = [phrase for phrase in ("javascript", *self.phrases) if phrase in lower]
        every = lines_of(text)
        lines = [line for line in every if self._keeps(line, least, phrases)]
        sentences = 0
        for line in lines:
            sentences += _sentences(line)
            if sentences >= self.least_sentences:
                break
        else:
            if sentences < self.least_sentences:
                return Drop(f"under {self.least_sentences} sentences", f"{sentences}")
        return {"text": "\n".join(lines)} if len(lines) < len(every) else None

    def _keeps(self, line: str, least: int, phrases: Sequence[str]) -> bool:
        if self.terminal_punctuation and not line.endswith(TERMINAL):
            return False
        if phrases and any(phrase in line.lower() for phrase in phrases):
            return False
        return not least or next(islice(TOKEN.finditer(line), least - 1, None), None) is not None


def _sentences(line: str) -> int:
    """Sentences of a line: marks that end one and stand before a space, a Han character or the
    end."""
    return max(1, len(re.findall(r"[.!?]+(?=[\s\"'”’)]|$)|[。！？]+", line)))


@STEPS.register("fineweb")
class FineWeb(Step):
    """FineWeb's rules (arXiv 2406.17557, section 3.5)."""

    kind: Literal["fineweb"] = "fineweb"
    punctuated_lines: Ratio = 0.12
    """The smallest share of lines that end with a mark."""
    duplicated_characters: Ratio = 0.1
    """The largest share of characters in lines that stand twice."""
    short_lines: Ratio = 0.67
    """The largest share of short lines."""
    short_line: Positive = 30
    """The characters of a short line. Half as many for languages without spaces."""

    def change(self, row: Row) -> Result:
        """The first rule that a text breaks."""
        lines = lines_of(row["text"])
        if not lines:
            return Drop("no lines")
        punctuated = sum(line.endswith(TERMINAL) for line in lines) / len(lines)
        if punctuated <= self.punctuated_lines:
            return Drop("lines without a mark at the end", f"{punctuated:.0%} have one")
        limit = self.short_line // (2 if spaceless(row) else 1)
        short = sum(len(line) < limit for line in lines) / len(lines)
        if short >= self.short_lines:
            return Drop("short lines", f"{short:.0%}")
        seen: set[str] = set()
        twice = 0
        for line in lines:
            twice += len(line) if line in seen else 0
            seen.add(line)
        if twice > self.duplicated_characters * sum(map(len, lines)):
            return Drop("characters in lines that stand twice", f"{twice}")
        return None


@STEPS.register("words")
class WordList(Step):
    """Drop texts with words of a list: spam, gambling, pornography, or a list of your own (M6,
    section 2.3)."""

    kind: Literal["words"] = "words"
    languages: tuple[str, ...] = ("zh", "en")
    """The languages of the built-in lists; they are short, and hold spam of gambling and
    pornography. Empty: none of them."""
    files: tuple[str, ...] = ()
    """Text files with a word or phrase on each line."""
    words: tuple[str, ...] = ()
    """Further words."""
    most: Whole = 1
    """How many occurrences a text may have. Longer texts may have more: see `share`."""
    share: Ratio = 0.002
    """The largest share of the tokens that are such words, for texts with more than `most`."""

    def prepare(self) -> None:
        """Raise ConfigError for a language without a list, for a missing file and an empty list."""
        require_lists(self.title, self.languages, SPAM, "files")
        _ = self._pattern

    @cached_property
    def _words(self) -> list[str]:
        words = [word for language in self.languages for word in SPAM[language]]
        for file in self.files:
            words += read_lines(Path(file), f"{self.title}: files")
        every = {word.strip().lower() for word in (*words, *self.words)} - {""}
        words = sorted(every, key=lambda word: (-len(word), word))
        if not words:
            raise ConfigError(f"{self.title}: no words; name languages, files or words")
        return words

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # a word of letters stands alone; Han text has no borders between words
        expressions = (
            rf"\b{re.escape(word)}\b" if re.fullmatch(r"[A-Za-z0-9' -]+", word) else re.escape(word)
            for word in self._words
        )
        return re.compile("|".join(expressions), re.IGNORECASE)

    def change(self, row: Row) -> Result:
        """A drop for a text with too many of the words."""
        lower = row["text"].lower()
        if not any(word in lower for word in self._words):  # ten times as fast as the pattern
            return None
        found = self._pattern.findall(row["text"])
        if len(found) > self.most and len(found) > self.share * count_tokens(row["text"]):
            return Drop("words of the list", ", ".join(sorted({*found})[:5]))
        return None


def require_lists(
    title: str, languages: tuple[str, ...], lists: dict[str, tuple[str, ...]], option: str
) -> None:
    """Raise ConfigError for a language without a list."""
    for language in languages:
        if language not in lists:
            raise ConfigError(
                f"{title}: no list for the language {language!r}{nearest(language, lists)}; or give"
                f" one as `{option}`"
            )


SPAM: dict[str, tuple[str, ...]] = {
    "en": (
        "online casino", "casino bonus", "slot machine online", "sports betting", "betting odds",
        "porn", "porno", "xxx videos", "sex videos", "escort service", "camgirl", "webcam sex",
        "buy viagra", "cheap viagra", "buy cialis", "payday loan", "free spins",
        "replica watches", "hookup tonight",
    ),
    "zh": (
        "博彩", "赌场", "百家乐", "六合彩", "时时彩", "老虎机", "真人娱乐", "彩票平台",
        "赌博网", "色情", "裸聊", "援交", "成人电影", "成人视频", "一夜情",
        "上门服务", "代开发票", "办证刻章",
        "无抵押贷款", "信用卡套现", "刷单兼职", "私服外挂", "迷药", "棋牌游戏平台",
    ),
}  # fmt: skip
"""Language → words of spam that hardly stand in other texts."""

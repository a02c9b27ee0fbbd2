"""Steps that repair and normalize texts: markup, encoding, characters, punctuation, script."""

from __future__ import annotations

import logging
import re
import unicodedata
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Literal

from skillweave.config.base import ConfigError, Positive, nearest
from skillweave.corpus.step import STEPS, Drop, Result, Row, Step
from skillweave.corpus.tokens import HAN, HAN_CHARACTER, KANA


@STEPS.register("extract")
class Extract(Step):
    """Take title and text from a page, without its markup, menus and advertisements
    (trafilatura)."""

    kind: Literal["extract"] = "extract"
    reads: ClassVar[tuple[str, ...]] = ("html",)
    comments: bool = False
    """Whether comments of readers are part of the text."""
    tables: bool = True
    """Whether tables are part of the text."""
    favor: Literal["balance", "precision", "recall"] = "balance"
    """What matters more where it is unclear whether something is text: to leave out what is none,
    or to lose nothing."""

    def change(self, row: Row) -> Result:
        """The text of the page, or a drop where there is none."""
        import trafilatura
        from lxml.etree import LxmlError  # ty: ignore[import-not-found] is compiled

        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # the report tells it
        try:
            found: Any = trafilatura.bare_extraction(
                row["html"],
                url=row.get("url"),
                include_comments=self.comments,
                include_tables=self.tables,
                favor_precision=self.favor == "precision",
                favor_recall=self.favor == "recall",
                with_metadata=True,  # for the title; to search for dates takes most of the time
                date_extraction_params={"extensive_search": False, "original_date": True},
            )
        except (ValueError, TypeError, AttributeError, RecursionError, LxmlError) as error:
            return Drop("malformed page", f"{type(error).__name__} {error}")
        if found is None or not found.text:
            return Drop("no text in the page")
        return {"text": found.text, "title": found.title or row.get("title")}


REPAIRABLE = re.compile(
    rf"[^\t !-%'-~\u3000-\u303f{HAN}{KANA}\uac00-\ud7a3\uff01-\uff0f\uff1a-\uff20\uffe5]"
)
"""What ftfy may change: everything but ASCII without control characters and the `&` of HTML
entities, and the letters and marks of East Asia, which no wrong decoding gives."""


@STEPS.register("repair")
class Repair(Step):
    """Undo the damage of wrong decoding, such as `â€™` for an apostrophe (ftfy), and remove control
    characters."""

    kind: Literal["repair"] = "repair"

    def change(self, row: Row) -> Result:
        """Text and title, repaired."""
        return _each(row, self.repair)

    def repair(self, text: str) -> str:
        """One text. ftfy looks at each line by itself; most lines need not be looked at."""
        return "\n".join(
            _fix(line) if REPAIRABLE.search(line) else line for line in text.split("\n")
        )


def _fix(line: str) -> str:
    import ftfy

    return ftfy.fix_text(line, unescape_html=True, normalization=None, fix_character_width=False)


INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffc]"
)
"""Characters without a width, marks of direction and variants. Line and paragraph separators become
line ends first."""
_WIDE = {0x3000: " ", **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}}
_WIDE_CHARACTER = re.compile("[\u3000\uff01-\uff5e]")
_WIDE_ALPHANUMERICS = {
    code: narrow for code, narrow in _WIDE.items() if narrow == " " or narrow.isalnum()
}


@STEPS.register("unicode")
class Unicode(Step):
    """Normalize characters: NFC, full-width letters and digits, invisible characters, spaces."""

    kind: Literal["unicode"] = "unicode"
    form: Literal["NFC", "NFKC"] = "NFC"
    """The normal form of Unicode. NFKC also changes ², ™ and ﬁ."""
    full_width: Literal["alphanumerics", "all", "keep"] = "alphanumerics"
    """Which full-width characters become ASCII: letters, digits and the space (Ａ１ → A1), all
    (also ，：！, which are the normal punctuation of Chinese), or none."""

    def change(self, row: Row) -> Result:
        """Text and title, normalized."""
        return _each(row, self.normalize)

    def normalize(self, text: str) -> str:
        """One text."""
        if not text.isascii():
            text = text.replace("\u2028", "\n").replace("\u2029", "\n\n")
            text = INVISIBLE.sub("", unicodedata.normalize(self.form, text))
            if self.full_width != "keep" and _WIDE_CHARACTER.search(text):
                text = text.translate(_WIDE if self.full_width == "all" else _WIDE_ALPHANUMERICS)
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
        text = re.sub(r"[^\S\n]{2,}|[^\S\n ]", " ", text)
        return re.sub(r" \n ?|\n ", "\n", re.sub(r"\n{3,}", "\n\n", text)).strip()


@STEPS.register("punctuation")
class Punctuation(Step):
    """Shorten repeated punctuation (M6, section 2.3): `！！！！` becomes `！`."""

    kind: Literal["punctuation"] = "punctuation"
    most: Positive = 1
    """How often a mark may stand in a row. Three dots, `--` and `……` stay."""

    def change(self, row: Row) -> Result:
        """Text and title without repetitions."""
        return _each(row, self.shorten)

    @cached_property
    def _repeated(self) -> re.Pattern[str]:
        return re.compile(rf"([^\w\s])\1{{{self.most},}}")

    def shorten(self, text: str) -> str:
        """One text."""
        return self._repeated.sub(self._shortened, text)

    def _shortened(self, match: re.Match[str]) -> str:
        mark, length = match[1], len(match[0])
        kept = {".": 3, "…": 2, "-": 3, "—": 2, "=": 3, "/": 2, "*": 2, "#": 6, "`": 3, ":": 2}
        if not unicodedata.category(mark).startswith(("P", "S")) or mark in "()[]{}<>\"'&|+":
            return match[0]  # brackets nest, and operators of code are written twice
        return mark * min(length, max(self.most, kept.get(mark, 1)))


@STEPS.register("simplify")
class Simplify(Step):
    """Write traditional Chinese in simplified characters (OpenCC)."""

    kind: Literal["simplify"] = "simplify"
    variant: Literal["t2s", "tw2s", "tw2sp", "hk2s"] = "t2s"
    """OpenCC's table: t2s for characters alone, tw2s and hk2s for those of Taiwan and Hong Kong,
    tw2sp for words of Taiwan too."""

    @cached_property
    def _converter(self) -> Any:
        from opencc import OpenCC

        return OpenCC(self.variant)

    def change(self, row: Row) -> Result:
        """Text and title in simplified characters. Japanese and Korean texts stay."""
        if not HAN_CHARACTER.search(row["text"] + (row.get("title") or "")):
            return None
        if row.get("language") in ("ja", "ko") or (
            row.get("language") is None and re.search(f"[{KANA}]", row["text"])
        ):
            return None
        return _each(row, self.simplify)

    def simplify(self, text: str) -> str:
        """One text. Only lines with a character that the tables replace are converted: most of a
        text in simplified characters has none, and OpenCC reads a megabyte a second."""
        return "\n".join(
            self._converter.convert(line) if self._replaced.search(line) else line
            for line in text.split("\n")
        )

    @cached_property
    def _replaced(self) -> re.Pattern[str]:
        """A character that some entry of the tables replaces."""
        import opencc

        folder = Path(opencc.__file__).parent
        config = (folder / "config" / f"{self.variant}.json").read_text("utf-8")
        characters: set[str] = set()
        for table in re.findall(r'"file": *"([^"]+)"', config):
            for line in (folder / "dictionary" / table).read_text("utf-8").splitlines():
                before, _, after = line.partition("\t")
                first = after.partition(" ")[0]
                pairs = zip_longest(before, first if len(first) == len(before) else "")
                characters |= {one for one, other in pairs if one != other}
        return re.compile(f"[{re.escape(''.join(sorted(characters)))}]")


ALLOWED = {
    "en": "A-Za-z",
    "zh": f"{HAN}A-Za-z",
    "ja": f"{HAN}{KANA}A-Za-z",
    "ko": "\uac00-\ud7a3\u1100-\u11ff\u3131-\u318eA-Za-z",
    "de": "A-Za-zÄÖÜäöüßẞ",
    "fr": "A-Za-zÀÂÆÇÉÈÊËÎÏÔŒÙÛÜŸàâæçéèêëîïôœùûüÿ",
    "es": "A-Za-zÁÉÍÑÓÚÜáéíñóúü",
    "it": "A-Za-zÀÈÉÌÎÒÓÙàèéìîòóù",
    "pt": "A-Za-zÀÁÂÃÇÉÊÍÓÔÕÚàáâãçéêíóôõú",
    "ru": "А-Яа-яЁёA-Za-z",
}
"""Language → its letters, as the inside of a character class."""
COMMON = (
    "\\s0-9!-/:-@\\[-`{-~\u00a0-\u00bf\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2100-\u214f"
    "\u2190-\u21ff\u2200-\u22ff"
)
"""Spaces, digits, punctuation, currencies, arrows and mathematical signs."""
EAST_ASIAN = "\u3000-\u303f\uff01-\uff65\ufe30-\ufe4f"
"""Punctuation of Chinese, Japanese and Korean texts."""


@STEPS.register("characters")
class Characters(Step):
    """Remove the characters that do not belong to given languages (M6, section 2.3: Chinese and
    English letters and punctuation)."""

    kind: Literal["characters"] = "characters"
    languages: tuple[str, ...] = ("zh", "en")
    """The languages whose letters stay, together with digits, punctuation and spaces."""
    also: str = ""
    """Further characters that stay."""
    most_removed: float = 0.3
    """A text that loses more than this share of its characters is dropped."""

    def prepare(self) -> None:
        """Raise ConfigError for a language without a list of letters."""
        for language in self.languages:
            if language not in ALLOWED:
                raise ConfigError(
                    f"{self.title}: no list of the letters of {language!r}"
                    f"{nearest(language, ALLOWED)}; or give its letters as `also`"
                )

    @cached_property
    def _others(self) -> re.Pattern[str]:
        letters = "".join(ALLOWED[language] for language in self.languages)
        return re.compile(f"[^{letters}{COMMON}{EAST_ASIAN}{re.escape(self.also)}]+")

    def change(self, row: Row) -> Result:
        """Text and title with allowed characters only."""
        left = self._others.sub("", row["text"])
        removed = 1 - len(left) / max(len(row["text"]), 1)
        if removed > self.most_removed:
            return Drop("characters of other languages", f"{removed:.0%} of the text")
        return _each(row, lambda text: self._others.sub("", text))


def _each(row: Row, function: Any) -> Result:
    """The text and the title of a row after a function, where it changes them."""
    found = {}
    for name in ("text", "title"):
        before = row.get(name)
        if before is not None and (after := function(before)) != before:
            found[name] = after
    return found or None

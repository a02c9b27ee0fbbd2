"""Messages of programs in English and Chinese, from the translations that Debian's packages
carry."""

import gettext
import io
import re
from collections.abc import Iterator
from pathlib import Path

from quickstart.steps.common import han_count

from .dictionaries import Pair
from .locked import archive_members, used_for

_CATALOGUE = re.compile(r"/zh_(CN|Hans)/LC_MESSAGES/[^/]+\.mo$")
_MARKUP = re.compile(r"<[^<>]{1,60}>|&\w+;")
_KEY = re.compile(r"[&_](?=\w)|\(_?&?[A-Z]\)$")
"""The letter of a menu entry that a key calls."""
LEAST_LETTERS = 8


def _plain(message: str) -> str:
    return " ".join(_KEY.sub("", _MARKUP.sub(" ", message)).split())


def messages(cache: Path) -> Iterator[Pair]:
    """A message of at least 8 letters and its Chinese translation, without markup and menu
    keys."""
    for source in used_for("translations"):
        for name, content in archive_members(source.name, cache):
            if not _CATALOGUE.search(f"/{name}"):
                continue
            catalogue = gettext.GNUTranslations(io.BytesIO(content))
            for english, chinese in sorted(_texts(catalogue)):
                first, second = _plain(english.rpartition("\x04")[2]), _plain(chinese)
                if len(first) >= LEAST_LETTERS and han_count(second) >= 2:
                    yield f"{source.name}:{first}", first, second


def _texts(catalogue: gettext.GNUTranslations) -> Iterator[tuple[str, str]]:
    # the only place where the standard library keeps all messages
    for english, chinese in vars(catalogue)["_catalog"].items():
        if isinstance(english, str) and isinstance(chinese, str):
            yield english, chinese

"""pictures-icons.parquet: icons of one colour with the words of their names and tags.

Some show the same things as emoji of the quickstart's test, in another drawing. They may stay.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from steps import sources
from steps.common import Row, fraction, split_of, unique
from steps.drawing import shape_file, tinted
from steps.lexicon import lexicon

STYLE_WORDS = {"outline", "outlined", "filled", "fill", "variant", "sharp", "rounded", "line"}
"""Words of a name that say how an icon is drawn, and not what it shows."""
STYLES = ("black", "ink", "light")
WORD = re.compile(r"[^\W_]+")
CHINESE_PER_WORD, ENGLISH_TAGS, CHINESE_TAGS = 2, 6, 5
LONGEST_PHRASE = 4


@dataclass(frozen=True)
class Icon:
    """An icon: its set, its name there, words beside the name, and its drawing."""

    source: str
    name: str
    tags: tuple[str, ...]
    svg: str

    @property
    def words(self) -> list[str]:
        """The words of the name that say what it shows."""
        words = WORD.findall(self.name.lower())
        kept = [word for word in words if word not in STYLE_WORDS]
        if len(kept) > 1 and kept[-1].isdigit():
            kept = kept[:-1]
        return kept or words


def files(archive: Path, folder: str) -> Iterator[tuple[str, str]]:
    """(name, SVG) of the drawings in a folder of an archive."""
    for member, content in sources.members(
        archive, lambda name: name.startswith(folder) and name.endswith(".svg")
    ):
        yield member.removeprefix(folder).removesuffix(".svg"), content.decode()


def table(archive: Path, name: str) -> dict | list:
    """A JSON file of an archive."""
    return json.loads(next(sources.members(archive, lambda member: member == name))[1])


def material(cache: Path) -> Iterator[Icon]:
    """Material Design Icons: aliases and categories."""
    archive = sources.fetch(sources.MDI, cache)
    known = {entry["name"]: entry for entry in table(archive, "package/meta.json")}
    for name, svg in files(archive, "package/svg/"):
        entry = known.get(name)
        if entry is None or entry["deprecated"] or "Brand / Logo" in entry["tags"]:
            continue
        tags = [part for tag in entry["tags"] for part in tag.lower().split(" / ")]
        svg = svg.replace("<path ", '<path fill="currentColor" ')
        yield Icon("mdi", name, (*(one.replace("-", " ") for one in entry["aliases"]), *tags), svg)


def tabler(cache: Path) -> Iterator[Icon]:
    """Tabler: categories and tags."""
    archive = sources.fetch(sources.TABLER, cache)
    known = table(archive, "package/icons.json")
    for folder in ("outline", "filled"):
        for name, svg in files(archive, f"package/icons/{folder}/"):
            if name in known and not name.startswith("brand-"):
                yield Icon(f"tabler-{folder}", name, tuple(map(str, known[name]["tags"])), svg)


def game(cache: Path) -> Iterator[Icon]:
    """Game-icons.net: names alone."""
    drawings = table(sources.fetch(sources.GAME, cache), "package/icons.json")
    for name in drawings["icons"]:
        yield Icon("game", name, (), shape_file(drawings, name) or "")


def lucide(cache: Path) -> Iterator[Icon]:
    """Lucide: tags."""
    archive = sources.fetch(sources.LUCIDE, cache)
    tags = table(archive, "package/tags.json")
    for name, svg in files(archive, "package/icons/"):
        yield Icon("lucide", name, tuple(tags.get(name, ())), svg)


def bootstrap(cache: Path) -> Iterator[Icon]:
    """Bootstrap Icons: names alone."""
    archive = sources.fetch(sources.BOOTSTRAP, cache)
    for name, svg in files(archive, "package/icons/"):
        yield Icon("bootstrap", name, (), svg)


SETS = (material, tabler, game, lucide, bootstrap)


def phrases(words: list[str], known: dict[str, list[str]]) -> Iterator[str]:
    """The longest phrases of the dictionary that words are made of, from left to right; words that
    it lacks are left out."""
    place = 0
    while place < len(words):
        for length in range(min(LONGEST_PHRASE, len(words) - place), 0, -1):
            phrase = " ".join(words[place : place + length])
            if phrase in known:
                yield phrase
                break
        place += length


def translate(words: list[str], known: dict[str, list[str]]) -> Iterator[str]:
    """Chinese words for English ones."""
    for phrase in phrases(words, known):
        yield from known[phrase][:CHINESE_PER_WORD]


def chinese(icon: Icon, known: dict[str, list[str]]) -> str | None:
    """Chinese words for the name and the first tags of an icon. None where the name has none."""
    own = list(translate(icon.words, known))
    tags = (WORD.findall(tag.lower()) for tag in icon.tags[:CHINESE_TAGS])
    more = [known[" ".join(tag)][0] for tag in tags if " ".join(tag) in known]
    return "，".join(unique([*own, *more])) if own else None


def english(icon: Icon) -> str:
    """The name and the first tags of an icon."""
    name = " ".join(icon.words)
    return ", ".join(unique([name, *(tag.lower() for tag in icon.tags[:ENGLISH_TAGS])]))


def rows(cache: Path) -> Iterator[Row]:
    """Each icon in black, and in a colour on another."""
    known = lexicon(cache)
    seen = set[str]()
    for icon in (icon for read in SETS for icon in read(cache)):
        if icon.svg in seen:
            continue
        seen.add(icon.svg)
        name, group = f"{icon.source}:{icon.name}", " ".join(icon.words)
        coloured = STYLES[1 + (fraction("light", name) < 0.3)]
        for style in ("black", coloured):
            key = f"{name}:{style}"
            yield {
                "key": key,
                "group": group,
                "split": split_of("pictures", group),
                "image": tinted(icon.svg, key, style),
                "text_zh": chinese(icon, known),
                "text_en": english(icon),
                "name_zh": None,
                "name_en": group,
                "source": icon.source,
            }

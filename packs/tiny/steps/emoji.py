"""pictures-emoji.parquet: emoji of four sets with their Chinese and English words.

Emoji that the quickstart validates or tests with are left out of every set: by code points, and by
the group of their base emoji. Skin tones are left out too.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from steps import sources
from steps.common import Row, split_of, unique
from steps.drawing import coloured, shape_file
from steps.held_out import SKIN_TONES, held_out

SETS = {
    "openmoji": sources.OPENMOJI,
    "fluent": sources.FLUENT,
    "fluent-flat": sources.FLUENT_FLAT,
    "noto": sources.NOTO,
}
WITHOUT_CODES = {"fluent": "fluent-flat"}
"""A set that does not say the code points of its pictures → one whose pictures have the same
names."""
Annotations = dict[str, dict[str, list[str]]]


@cache
def annotations(cache_folder: Path, language: str) -> Annotations:
    """A language's names and keywords, by the emoji without variation selectors."""
    merged: Annotations = {}
    for source, kind in (
        (sources.ANNOTATIONS, "annotations"),
        (sources.DERIVED, "annotationsDerived"),
    ):
        name = f"package/{kind}/{language}/annotations.json"
        archive = sources.fetch(source, cache_folder)
        for _, content in sources.members(archive, lambda member, name=name: member == name):
            merged.update(json.loads(content)[kind]["annotations"])
    return {text.replace("\ufe0f", ""): entry for text, entry in merged.items()}


def caption(annotation: dict[str, list[str]], comma: str) -> str:
    """An emoji's name and its other keywords, as in the quickstart: `狗脸，宠物，狗，脸`."""
    return comma.join(unique([annotation["tts"][0], *annotation["default"]]))


def icon_set(cache_folder: Path, name: str) -> tuple[dict, dict[str, str]]:
    """The drawings of a set, and code points → name of a drawing."""
    archive = sources.fetch(SETS[name], cache_folder)
    files = {"package/icons.json", "package/chars.json"}
    found = {
        member.rpartition("/")[2]: json.loads(content)
        for member, content in sources.members(archive, files.__contains__)
    }
    if name in WITHOUT_CODES:
        return found["icons.json"], icon_set(cache_folder, WITHOUT_CODES[name])[1]
    return found["icons.json"], found["chars.json"]


def trained_on(codes: dict[str, str], known: Annotations) -> Iterator[tuple[str, str, str]]:
    """(code points, name of the drawing, the emoji as text) of the emoji with words that are not
    held out."""
    for unified, icon in sorted(codes.items()):
        points = [int(part, 16) for part in unified.split("-")]
        text = "".join(chr(point) for point in points if point != 0xFE0F)
        if text in known and not set(points) & set(SKIN_TONES) and not held_out(points):
            yield unified, icon, text


def rows(cache_folder: Path) -> Iterator[Row]:
    """Two pictures for each emoji of each set: on white, and on a colour."""
    chinese, english = (annotations(cache_folder, language) for language in ("zh", "en"))
    for name in SETS:
        drawings, codes = icon_set(cache_folder, name)
        for unified, icon, text in trained_on(codes, english):
            svg = shape_file(drawings, icon)
            if svg is None:
                continue
            zh, en = chinese[text], english[text]
            for style in ("white", "colour"):
                key = f"{name}:{unified}:{style}"
                yield {
                    "key": key,
                    "group": text,
                    "split": split_of("pictures", text),
                    "image": coloured(svg, key, background=style == "colour"),
                    "text_zh": caption(zh, "，"),
                    "text_en": caption(en, ", "),
                    "name_zh": zh["tts"][0],
                    "name_en": en["tts"][0],
                    "source": name,
                }

"""emoji.parquet: pictures of emoji with Chinese and English names and keywords."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa

from . import sources
from .common import MEDIA, Row, split_of
from .emoji_groups import group_of

FIELDS = (
    ("image", MEDIA),
    ("caption_zh", pa.string()),
    ("caption_en", pa.string()),
    ("name_zh", pa.string()),
    ("name_en", pa.string()),
    ("keywords_zh", pa.list_(pa.string())),
    ("keywords_en", pa.list_(pa.string())),
    ("category", pa.string()),
)
PICTURES = "package/img/google/64/"
LARGE_GROUP = 20
Annotations = dict[str, dict[str, list[str]]]


def _annotations(cache: Path, language: str) -> Annotations:
    """Return a language's names and keywords, keyed by the emoji without its variation
    selectors."""
    merged: Annotations = {}
    for source, kind in (
        (sources.ANNOTATIONS, "annotations"),
        (sources.DERIVED, "annotationsDerived"),
    ):
        name = f"package/{kind}/{language}/annotations.json"
        for _, content in sources.members(sources.fetch(source, cache), name):
            merged.update(json.loads(content)[kind]["annotations"])
    return {text.replace("\ufe0f", ""): entry for text, entry in merged.items()}


def _assign_splits(rows: list[Row]) -> None:
    """Give flags with the same picture one group, then give every group its split.

    Groups of more than `LARGE_GROUP` pictures (families, adults) are hardly told apart by
    their pictures and would swing the pools, so they are trained on.
    """
    first: dict[bytes, str] = {}
    for row in sorted(rows, key=lambda row: row["key"]):
        row["group"] = first.setdefault(row["image"]["bytes"], row["group"])
    sizes = Counter(row["group"] for row in rows)
    for row in rows:
        large = sizes[row["group"]] > LARGE_GROUP
        row["split"] = "train" if large else split_of("emoji", row["group"])


def caption(annotation: dict[str, list[str]], comma: str) -> str:
    """An emoji's name and its other keywords: `狗脸，宠物，狗，脸`."""
    (name, *_), keywords = annotation["tts"], annotation["default"]
    return comma.join([name, *(word for word in keywords if word != name)])


def build(cache: Path) -> list[Row]:
    """Return one row for each emoji without skin tones."""
    archive = sources.fetch(sources.EMOJI, cache)
    table = json.loads(next(sources.members(archive, "package/emoji.json"))[1])
    pictures = {
        name.removeprefix(PICTURES): data for name, data in sources.members(archive, PICTURES)
    }
    chinese, english = (_annotations(cache, language) for language in ("zh", "en"))
    rows: list[Row] = []
    for entry in table:
        if entry["category"] == "Component" or not entry["has_img_google"]:
            continue
        text = "".join(chr(int(part, 16)) for part in entry["unified"].split("-")).replace(
            "\ufe0f", ""
        )
        zh, en = chinese[text], english[text]
        rows.append(
            {
                "key": entry["unified"].lower(),
                "group": group_of(entry["unified"], entry["category"]),
                "image": {"bytes": pictures[entry["image"]], "path": entry["image"]},
                "caption_zh": caption(zh, "，"),
                "caption_en": caption(en, ", "),
                "name_zh": zh["tts"][0],
                "name_en": en["tts"][0],
                "keywords_zh": zh["default"],
                "keywords_en": en["default"],
                "category": entry["category"],
            }
        )
    _assign_splits(rows)
    return rows

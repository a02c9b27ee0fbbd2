"""Whether a search for an everyday word finds what it means: ten words, in Chinese and in English.

python benchmarks/everyday_words.py [MODEL] [--picture FILE] [--json FILE]

All 1,906 emoji of the quickstart pack are searched, those of the training data too. A word is found
if one of the first three emoji is right: if its English name matches the pattern beside the word
below. The patterns were written by hand before the model was trained.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pyarrow.parquet as pq
from PIL import Image
from report import Figure, report

from skillweave.data.sources.pack import pack_folder
from skillweave.inference.predictor import Predictor, as_predictor

SHOWN = 3
LEAST = 8
"""Words of ten that must be found in each language."""
WORDS = [
    ("smile", "微笑", r"smil|grin|laugh|joy|beaming|savoring"),
    ("dog", "狗", r"\b(?<!hot )dog\b|poodle"),
    ("car", "汽车", r"automobile|\bcar\b|taxi|sport utility"),
    ("rain", "雨", r"rain\b|umbrella|lightning"),
    ("apple", "苹果", r"\bapple"),
    ("heart", "爱心", r"heart"),
    ("flag of China", "中国国旗", r"flag: China"),
    ("clock", "时钟", r"clock|o’clock|-thirty|watch"),
    ("fish", "鱼", r"fish|shark|fishing|dolphin|whale"),
    (
        "music",
        "音乐",
        r"music|saxophone|guitar|trumpet|violin|flute|harp|headphone|microphone|drum",
    ),
]
"""English, Chinese, and what the name of a right emoji matches."""


@dataclass(frozen=True)
class Found:
    """The first emoji for a word, and which of them are right."""

    word: str
    names: list[str]
    right: list[bool]
    pictures: list[bytes]


def searches(predictor: Predictor) -> list[tuple[Found, Found]]:
    """The searches in English and Chinese."""
    rows = pq.read_table(pack_folder() / "emoji.parquet", columns=["name_en", "image"]).to_pylist()
    pictures = [row["image"]["bytes"] for row in rows]
    items = predictor.encode("text_to_image", None, image=pictures)

    def search(word: str, pattern: str) -> Found:
        (query,) = predictor.encode("text_to_image", None, text=[word])
        best = (-(items @ query)).argsort(kind="stable")[:SHOWN]
        names = [rows[i]["name_en"] for i in best]
        right = [re.search(pattern, name) is not None for name in names]
        return Found(word, names, right, [pictures[i] for i in best])

    return [(search(en, right), search(zh, right)) for en, zh, right in WORDS]


def draw(found: Sequence[tuple[Found, Found]], file: Path) -> None:
    """The searches as a picture: a row for a word, found in English and in Chinese; wrong emoji are
    faded."""
    figure = plt.figure(figsize=(9, 5.4), dpi=100)
    for i, pair in enumerate(found):
        row, left = i % 5, 0.02 + 0.5 * (i // 5)
        low = 0.77 - 0.19 * row
        figure.text(left, low + 0.06, pair[0].word, fontsize=10, va="center")
        for j, one in enumerate(pair):
            start = left + 0.11 + 0.19 * j
            if not row:
                figure.text(start + 0.08, 0.95, ("English", "Chinese")[j], fontsize=10, ha="center")
            for k, (picture, right) in enumerate(zip(one.pictures, one.right, strict=True)):
                axes = figure.add_axes((start + 0.058 * k, low, 0.055, 0.12))
                axes.imshow(Image.open(io.BytesIO(picture)), alpha=1.0 if right else 0.35)
                axes.axis("off")
    figure.savefig(file, metadata={"Software": None})
    plt.close(figure)


def main() -> int:
    """Search, print what is found and how many words are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="skillweave/tiny", help="a run or model folder")
    parser.add_argument("--picture", type=Path, help="draw the searches into this PNG file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    found = searches(as_predictor(arguments.model))
    for pair in found:
        for one in pair:
            told = [
                f"{'+' if ok else '-'} {name}"
                for name, ok in zip(one.names, one.right, strict=True)
            ]
            print(f"{one.word}: {', '.join(told)}")
    figures = []
    for name, language in (("English", 0), ("Chinese", 1)):
        number = sum(any(pair[language].right) for pair in found)
        figures.append(
            Figure(f"{name} words found, of 10", number, "least", LEAST, number >= LEAST)
        )
    if arguments.picture:
        draw(found, arguments.picture)
    return report("Everyday words among the emoji", figures, arguments.json)


if __name__ == "__main__":
    sys.exit(main())

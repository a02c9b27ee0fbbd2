"""Questions about the pictures and clips of the quickstart pack, made by templates when a recipe
opens them: `pack:questions` and `pack:clip_questions`.

The types are those of M6 (arXiv 2103.00823, Table 4) as far as the pack shows them: what kind of
thing it is, its colour, how many there are, where one thing is seen from another, and how it moves.
Every choice depends on the key of the picture alone, so the questions are always the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from skillweave.config.base import choose
from skillweave.data.sources.base import MemoryTable, Row, Table
from skillweave.data.sources.pack import MADE, open_pack
from skillweave.data.sources.split import hash_fraction

T = TypeVar("T")
LANGUAGES = ("zh", "en")
SIDE = 96
"""Width and height of a picture that is put together, in pixels."""
CELLS = 3
"""Rows and columns of the places where several things may be."""
PICTURES_EACH = 2
"""Pictures of several things that are made of each emoji."""
SAMPLED = 32
"""Rows and columns of the pixels that tell the colour of a thing."""
CLEAR = 0.5
"""Smallest share of the pixels that the colour of a thing has, if it is asked for."""

Words = tuple[str, str]
"""Chinese and English."""
Made = Callable[[], tuple[list[Row], list[Callable[[], Any]]]]
"""What makes the rows of a table, and for each what gives its picture or clip."""

KINDS: Mapping[str, Words] = {
    "Smileys & Emotion": ("表情", "smiley"),
    "People & Body": ("人物", "person"),
    "Animals & Nature": ("动植物", "animal or plant"),
    "Food & Drink": ("食物", "food or drink"),
    "Travel & Places": ("地点或交通", "place or vehicle"),
    "Activities": ("活动", "activity"),
    "Objects": ("物品", "object"),
    "Symbols": ("符号", "symbol"),
    "Flags": ("旗帜", "flag"),
}
"""Category of an emoji → what kind of thing it is."""
COLOURS: Mapping[str, Words] = {
    "red": ("红色", "red"),
    "orange": ("橙色", "orange"),
    "yellow": ("黄色", "yellow"),
    "green": ("绿色", "green"),
    "blue": ("蓝色", "blue"),
    "purple": ("紫色", "purple"),
    "pink": ("粉色", "pink"),
    "brown": ("棕色", "brown"),
    "black": ("黑色", "black"),
    "grey": ("灰色", "grey"),
    "white": ("白色", "white"),
}
"""The basic colours (Berlin and Kay 1969)."""
NUMBERS: Sequence[Words] = (
    ("一个", "one"),
    ("两个", "two"),
    ("三个", "three"),
    ("四个", "four"),
    ("五个", "five"),
)
RELATIONS: Mapping[str, Words] = {
    "left": ("左边", "to the left"),
    "right": ("右边", "to the right"),
    "above": ("上面", "above"),
    "below": ("下面", "below"),
}
MOTIONS: Mapping[str, Words] = {
    "left": ("向左移动", "moves left"),
    "right": ("向右移动", "moves right"),
    "up": ("向上移动", "moves up"),
    "down": ("向下移动", "moves down"),
    "grow": ("变大", "grows"),
    "spin": ("旋转", "spins"),
}
TEMPLATES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "kind": (
        ("这是哪一类东西？", "图里的东西属于哪一类？"),
        ("What kind of thing is this?", "What is shown here?"),
    ),
    "colour": (
        ("它主要是什么颜色？", "图里的东西是什么颜色的？"),
        ("What colour is it mostly?", "What is its main colour?"),
    ),
    "number": (
        ("图里有几个东西？", "一共有几个？"),
        ("How many things are there?", "How many are in the picture?"),
    ),
    "relation": (
        ("{0}在{1}的哪一边？", "从{1}看，{0}在哪里？"),
        ("Where is the {0}, seen from the {1}?", "On which side of the {1} is the {0}?"),
    ),
    "motion": (
        ("它怎么动？", "它在做什么动作？"),
        ("How does it move?", "What does it do?"),
    ),
}
"""Type of a question → how it is put in Chinese and in English."""


@dataclass(frozen=True)
class Thing:
    """An emoji of the pack. `colour`: its main colour, or None where there is no single one."""

    key: str
    group: str
    split: str
    kind: str
    picture: bytes
    colour: str | None


@dataclass(frozen=True)
class Scene:
    """A picture that is put together: pictures of things, each with its corner and side in
    pixels."""

    parts: Sequence[tuple[bytes, tuple[int, int], int]]

    def file(self) -> Row:
        """A PNG file, transparent between the things, as the cell of a table."""
        canvas = Image.new("RGBA", (SIDE, SIDE))
        shown: dict[tuple[bytes, int], Image.Image] = {}
        for content, corner, side in self.parts:
            if (content, side) not in shown:
                size = (side, side)
                shown[content, side] = _decode(content).resize(size, Image.Resampling.LANCZOS)
            canvas.alpha_composite(shown[content, side], corner)
        file = io.BytesIO()
        canvas.save(file, "PNG", compress_level=1)  # it is read right away
        return {"bytes": file.getvalue(), "path": None}


@dataclass(frozen=True)
class Question:
    """A question with its answer in both languages. `about`: what stands in its template."""

    type: str
    answer: Words
    about: Sequence[Words] = ()

    def rows(self, key: str, thing: Row) -> Iterator[Row]:
        """A row for each language."""
        for number, language in enumerate(LANGUAGES):
            own = f"{key}:{language}"
            template = drawn(TEMPLATES[self.type][number], own, "template")
            question = template.format(*(words[number] for words in self.about))
            yield {
                "key": own,
                **thing,
                "question": question,
                "answer": self.answer[number],
                "type": self.type,
                "language": language,
            }


class QuestionTable(MemoryTable):
    """Questions in memory. What each is about is read, or put together, with its row only.

    `field`: the column of what they are about. `contents`: what gives it, for each row.
    """

    def __init__(
        self, path: str, rows: Sequence[Row], field: str, contents: Sequence[Callable[[], Any]]
    ) -> None:
        super().__init__(path, rows)
        self.field, self.contents = field, contents
        self.media = frozenset({field})
        self.columns = [*self.columns, field]

    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one row."""
        row = super().read(index, names)
        if self.field in names:
            row[self.field] = self.contents[index]()
        return row


def drawn(options: Sequence[T], key: str, purpose: str) -> T:
    """One of some options, always the same for a key and a purpose."""
    return options[int(hash_fraction(key, purpose) * len(options))]


def main_colour(picture: Image.Image) -> str | None:
    """The basic colour of most pixels that are not transparent, of an RGBA picture; None where it
    has less than `CLEAR` of them."""
    small = picture.resize((SAMPLED, SAMPLED), Image.Resampling.NEAREST)
    opaque = np.asarray(small)[..., 3] > 127
    hsv = np.asarray(small.convert("RGB").convert("HSV"))[opaque].astype(float)
    if not len(hsv):
        return None
    counts = np.bincount(_colour_numbers(hsv))
    commonest = int(counts.argmax())
    return list(COLOURS)[commonest] if counts[commonest] >= CLEAR * len(hsv) else None


def _colour_numbers(hsv_P3: np.ndarray) -> np.ndarray:
    """[P] the number in `COLOURS` of each pixel, hue, saturation and value from 0 to 255."""
    hue, saturation, value = hsv_P3[:, 0] * 360 / 255, hsv_P3[:, 1] / 255, hsv_P3[:, 2] / 255
    names = list(COLOURS)
    bounds = [18, 42, 68, 165, 255, 300, 345]
    around = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "red"]
    wheel = np.array([names.index(name) for name in around])
    found = wheel[np.searchsorted(bounds, hue, side="right")]
    warm = (hue >= 8) & (hue < 45)
    pale_red = ((hue < 14) | (hue >= 330)) & (saturation < 0.55) & (value > 0.75)
    for mask, name in (
        (warm & (value < 0.72), "brown"),
        (pale_red, "pink"),
        ((saturation < 0.2) & (value >= 0.88), "white"),
        ((saturation < 0.2) & (value < 0.88), "grey"),
        (value < 0.27, "black"),
    ):
        found = np.where(mask, names.index(name), found)
    return found


def _decode(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGBA")


@cache
def things() -> tuple[Thing, ...]:
    """The emoji of the pack in the order of their keys, read once per process."""
    table = open_pack("emoji", "pack:emoji")
    names = ("key", "group", "split", "category", "image")
    found = []
    for index in range(len(table)):
        row = table.read(index, names)
        content = row["image"]["bytes"]
        colour = main_colour(_decode(content))
        found.append(
            Thing(row["key"], row["group"], row["split"], row["category"], content, colour)
        )
    return tuple(sorted(found, key=lambda thing: thing.key))


def _several(thing: Thing, key: str) -> tuple[Question, Scene]:
    """How many there are, of one to five equal things in places of their own."""
    number = drawn(range(1, len(NUMBERS) + 1), key, "number")
    cell = SIDE // CELLS
    places = sorted(range(CELLS**2), key=lambda place: hash_fraction(f"{key}:{place}", "place"))
    corners = [(place % CELLS * cell + 2, place // CELLS * cell + 2) for place in places[:number]]
    scene = Scene([(thing.picture, corner, cell - 4) for corner in corners])
    return Question("number", NUMBERS[number - 1]), scene


def _two(thing: Thing, others: Sequence[Thing], key: str) -> tuple[Question, Scene]:
    """Where a thing is, seen from one of another kind. `others`: the things of its split."""
    draws = (drawn(others, f"{key}:{attempt}", "other") for attempt in count())
    other = next(one for one in draws if one.kind != thing.kind)
    relation = drawn(list(RELATIONS), key, "relation")
    side, far = 42, SIDE - 42
    across = int(hash_fraction(key, "across") * (far + 1))
    places = [(0, across), (far, across)]
    if relation in ("above", "below"):
        places = [(across, 0), (across, far)]
    own, its = places if relation in ("left", "above") else places[::-1]
    scene = Scene([(thing.picture, own, side), (other.picture, its, side)])
    return Question("relation", RELATIONS[relation], (KINDS[thing.kind], KINDS[other.kind])), scene


def _about_picture(thing: Thing, others: Sequence[Thing]) -> Iterator[tuple[str, Question, Scene]]:
    """The questions about a thing, each with its key and its picture."""
    alone = Scene([(thing.picture, (0, 0), SIDE)])
    yield f"{thing.key}:kind", Question("kind", KINDS[thing.kind]), alone
    if thing.colour:
        yield f"{thing.key}:colour", Question("colour", COLOURS[thing.colour]), alone
    for number in range(PICTURES_EACH):
        key = f"{thing.key}:number{number}"
        yield key, *_several(thing, key)
        key = f"{thing.key}:relation{number}"
        yield key, *_two(thing, others, key)


@cache
def _picture_questions() -> tuple[list[Row], list[Callable[[], Any]]]:
    rows: list[Row] = []
    contents: list[Callable[[], Any]] = []
    splits: dict[str, list[Thing]] = {}
    for thing in things():
        splits.setdefault(thing.split, []).append(thing)
    for thing in things():
        for key, question, scene in _about_picture(thing, splits[thing.split]):
            made = list(question.rows(key, {"group": thing.group, "split": thing.split}))
            rows += made
            contents += [scene.file] * len(made)
    return rows, contents


@cache
def _clip_questions() -> tuple[list[Row], list[Callable[[], Any]]]:
    rows: list[Row] = []
    contents: list[Callable[[], Any]] = []
    table = open_pack("clips", "pack:clips")
    shown = {thing.key: thing for thing in things()}
    for index in range(len(table)):
        clip = table.read(index, ("key", "group", "split", "motion", "emoji_key"))
        thing = shown[clip["emoji_key"]]
        questions = [Question("motion", MOTIONS[clip["motion"]])]
        questions.append(Question("kind", KINDS[thing.kind]))
        if thing.colour:
            questions.append(Question("colour", COLOURS[thing.colour]))
        about = {"group": clip["group"], "split": clip["split"]}
        for question in questions:
            made = list(question.rows(f"{clip['key']}:{question.type}", about))
            rows += made
            contents += [partial(_clip, table, index)] * len(made)
    return rows, contents


def _clip(table: Table, index: int) -> Any:
    return table.read(index, ("video",))["video"]


def _open(made: Made, field: str, language: str, path: str) -> QuestionTable:
    if language:
        choose({name: name for name in LANGUAGES}, language, "language")
    rows, contents = made()
    kept = [i for i, row in enumerate(rows) if not language or row["language"] == language]
    return QuestionTable(path, [rows[i] for i in kept], field, [contents[i] for i in kept])


@MADE.register("questions")
def open_questions(language: str, path: str) -> Table:
    """Questions about pictures: `pack:questions`, or `pack:questions:zh` for one language. Raises
    ConfigError for an unknown language."""
    return _open(_picture_questions, "image", language, path)


@MADE.register("clip_questions")
def open_clip_questions(language: str, path: str) -> Table:
    """Questions about clips, as `open_questions`."""
    return _open(_clip_questions, "video", language, path)

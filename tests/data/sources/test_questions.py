"""Questions about the pictures and clips of the quickstart pack."""

import io
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source, open_table
from skillweave.data.sources.questions import (
    CELLS,
    COLOURS,
    KINDS,
    MOTIONS,
    NUMBERS,
    RELATIONS,
    SIDE,
    QuestionTable,
    main_colour,
    things,
)

ENGLISH = 1


@pytest.fixture(scope="module")
def questions() -> QuestionTable:
    table = open_table("pack:questions:en")
    assert isinstance(table, QuestionTable)
    return table


def of_type(table: QuestionTable, kind: str) -> list[int]:
    return [i for i, row in enumerate(table.rows) if row["type"] == kind]


def alpha(table: QuestionTable, index: int) -> np.ndarray:
    content = table.read(index, ["image"])["image"]["bytes"]
    return np.asarray(Image.open(io.BytesIO(content)))[..., 3]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 30, 30), "red"),
        ((255, 140, 0), "orange"),
        ((255, 204, 50), "yellow"),
        ((40, 160, 60), "green"),
        ((30, 100, 220), "blue"),
        ((130, 60, 190), "purple"),
        ((255, 130, 180), "pink"),
        ((120, 70, 40), "brown"),
        ((15, 15, 15), "black"),
        ((140, 140, 140), "grey"),
        ((250, 250, 250), "white"),
    ],
)
def test_a_colour_has_its_everyday_name(rgb: tuple[int, int, int], name: str) -> None:
    assert main_colour(Image.new("RGBA", (64, 64), (*rgb, 255))) == name
    mostly = Image.new("RGBA", (64, 64), (*rgb, 255))
    mostly.paste((0, 255, 255, 0), (0, 0, 64, 50))  # transparent pixels do not count
    assert main_colour(mostly) == name


def test_a_thing_of_many_colours_or_none_is_not_asked_about() -> None:
    striped = Image.new("RGBA", (64, 64), "red")
    striped.paste((0, 160, 0, 255), (0, 0, 22, 64))
    striped.paste((0, 0, 255, 255), (22, 0, 43, 64))
    assert main_colour(striped) is None
    assert main_colour(Image.new("RGBA", (64, 64))) is None


def test_the_number_is_that_of_the_things_in_the_picture(questions: QuestionTable) -> None:
    cell, words = SIDE // CELLS, [number[ENGLISH] for number in NUMBERS]
    for index in of_type(questions, "number")[::97]:
        cells = alpha(questions, index).reshape(CELLS, cell, CELLS, cell)
        count = int((cells.max(axis=(1, 3)) > 0).sum())
        assert questions.rows[index]["answer"] == words[count - 1]


def test_a_thing_is_where_the_answer_says(questions: QuestionTable) -> None:
    shown = {thing.key: thing for thing in things()}
    sides = {words[ENGLISH]: side for side, words in RELATIONS.items()}
    halves = {
        "left": np.s_[:, : SIDE // 2],
        "right": np.s_[:, SIDE // 2 :],
        "above": np.s_[: SIDE // 2],
        "below": np.s_[SIDE // 2 :],
    }
    for index in of_type(questions, "relation")[::97]:
        row = questions.rows[index]
        thing = shown[row["key"].partition(":")[0]]
        picture = Image.open(io.BytesIO(thing.picture)).convert("RGBA")
        own = np.asarray(picture.resize((42, 42), Image.Resampling.LANCZOS))[..., 3]
        half = alpha(questions, index)[halves[sides[row["answer"]]]]
        rows, columns = half.shape
        found = [
            np.array_equal(own, half[y : y + 42, x : x + 42])
            for y in range(rows - 41)
            for x in range(columns - 41)
        ]
        assert any(found)
        assert KINDS[thing.kind][ENGLISH] in row["question"]


def test_splits_are_those_of_the_pictures() -> None:
    splits = defaultdict(set)
    for table in (open_table("pack:questions"), open_table("pack:clip_questions")):
        keys = table.column("key")
        assert len(set(keys)) == len(keys)
        for group, split in zip(table.column("group"), table.column("split"), strict=True):
            splits[group].add(split)
    assert set(map(len, splits.values())) == {1}
    pictures = open_table("pack:emoji")
    pairs = zip(pictures.column("group"), pictures.column("split"), strict=True)
    assert {group: {split} for group, split in pairs} == splits


def test_a_question_has_its_answer_in_both_languages() -> None:
    rows = open_table("pack:questions").rows
    kinds = {zh: en for words in (KINDS, COLOURS, RELATIONS) for zh, en in words.values()}
    kinds |= dict(NUMBERS)
    answers = {row["key"]: row["answer"] for row in rows}
    for row in rows[::41]:
        if row["language"] == "zh":
            assert kinds[row["answer"]] == answers[row["key"].removesuffix("zh") + "en"]
    assert Counter(row["language"] for row in rows) == {"zh": len(rows) // 2, "en": len(rows) // 2}


def test_no_answer_is_the_right_one_for_most_questions_of_its_type(
    questions: QuestionTable,
) -> None:
    answers = Counter((row["type"], row["answer"]) for row in questions.rows)
    totals = Counter(row["type"] for row in questions.rows)
    shares = {pair: count / totals[pair[0]] for pair, count in answers.items()}
    assert max(shares.values()) < 0.35
    assert all(share < 0.3 for (kind, _), share in shares.items() if kind in ("number", "relation"))


def test_a_clip_is_asked_about_its_motion() -> None:
    table, clips = open_table("pack:clip_questions:en"), open_table("pack:clips")
    motions = dict(zip(clips.column("key"), clips.column("motion"), strict=True))
    for index in of_type(table, "motion")[::97]:
        row = table.read(index, ["key", "answer", "video"])
        motion = motions[row["key"].removesuffix(":motion:en")]
        assert row["answer"] == MOTIONS[motion][ENGLISH]
        assert row["video"]["bytes"][4:8] == b"ftyp"


def test_a_source_has_them_as_fields() -> None:
    fields = ["image", "question", "answer", "type"]
    source = open_source(DataConfig(path="pack:questions:zh"), "test", fields)
    row = source[0]
    assert row["image"]["bytes"].startswith(b"\x89PNG") and row["type"] in source.column("type")
    with pytest.raises(ConfigError, match="unknown language 'de'"):
        open_table("pack:questions:de")
    with pytest.raises(ConfigError, match="did you mean 'questions'"):
        open_table("pack:qestions")

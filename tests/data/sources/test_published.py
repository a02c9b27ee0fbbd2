"""GLUE, CLUE and SQuAD on small files in their published form."""

import json
from pathlib import Path
from typing import Any

import pytest

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source, open_table

GLUE_FILES = {
    "CoLA": {
        "train.tsv": (
            "gj04\t1\t\tOur friends won't buy \"this analysis.\ngj04\t0\t*\tThey drank the pub.\n"
        ),
        "dev.tsv": "gj04\t1\t\tBill floated.\n",
        "test.tsv": "index\tsentence\n0\tBill whistled.\n",
    },
    "MRPC": {
        "train.tsv": (
            "﻿Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tOne"
            ' "quote.\tTwo\r\n0\t9\tbroken\r\n'
        ),
        "dev.tsv": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tThree\tFour\n",
    },
    "STS-B": {
        "train.tsv": (
            "index\tgenre\tscore\tsentence1\tsentence2\tscore\n".replace("\tscore\ts", "\tyear\ts")
            + "0\tx\t12\ta\tb\t3.8\n"
        )
    },
    "MNLI": {
        "train.tsv": "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tneutral\n",
        "dev_matched.tsv": "index\tsentence1\tsentence2\tgold_label\n0\tc\td\tentailment\n",
        "dev_mismatched.tsv": "index\tsentence1\tsentence2\tgold_label\n0\te\tf\tcontradiction\n",
    },
}


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def rows(path: str, *columns: str) -> list[tuple[Any, ...]]:
    table = open_table(path)
    return [tuple(table.read(i, columns)[c] for c in columns) for i in range(len(table))]


@pytest.mark.parametrize(
    ("task", "columns", "expected"),
    [
        (
            "CoLA",
            ("split", "text", "label"),
            [
                ("train", "Our friends won't buy \"this analysis.", "1"),
                ("train", "They drank the pub.", "0"),
                ("validation", "Bill floated.", "1"),
                ("test", "Bill whistled.", None),
            ],
        ),
        (
            "MRPC",
            ("text", "second", "label"),
            [('One "quote.', "Two", "1"), ("Three", "Four", "0")],
        ),
        ("STS-B", ("text", "second", "score"), [("a", "b", "3.8")]),
        (
            "MNLI",
            ("split", "text", "second", "label"),
            [
                ("train", "a", "b", "neutral"),
                ("validation", "c", "d", "entailment"),
                ("validation", "e", "f", "contradiction"),
            ],
        ),
    ],
)
def test_glue(
    tmp_path: Path, task: str, columns: tuple[str, ...], expected: list[tuple[Any, ...]]
) -> None:
    folder = write(tmp_path / task, GLUE_FILES[task])
    assert rows(f"glue:{folder}", *columns) == expected


def test_a_row_with_too_few_cells_is_listed(tmp_path: Path) -> None:
    table = open_table(f"glue:{write(tmp_path / 'MRPC', GLUE_FILES['MRPC'])}")
    assert table.skipped == [("train.tsv:3", "3 cells where there are 5")]


CHID = {"content": ["甲#idiom000001#乙#idiom000002#丙"], "candidates": ["一心一意", "三心二意"]}
C3 = [
    ["男：好。", "女：走吧。"],
    [{"question": "去哪？", "choice": ["家", "学校"], "answer": "学校"}],
    "1-1",
]
ANSWER = {"text": "北京", "answer_start": 0}
QUESTION = {"id": "q1", "question": "首都？", "answers": [ANSWER, ANSWER]}
CMRC = {"version": "1", "data": [{"paragraphs": [{"context": "北京是首都。", "qas": [QUESTION]}]}]}
SPANS = {"span1_text": "王", "span2_text": "他", "span1_index": 9, "span2_index": 0}
PAIRS = [
    {"sentence1": "甲", "sentence2": "乙", "label": "-"},
    {"sentence1": "丙", "sentence2": "丁", "label": "neutral"},
]
CLUE_FILES: dict[str, tuple[dict[str, Any], tuple[str, ...], list[tuple[Any, ...]]]] = {
    "tnews_public": (
        {"train.json": [{"label": "108", "label_desc": "news_edu", "sentence": "上课"}]},
        ("text", "label"),
        [("上课", "108")],
    ),
    "afqmc": (
        {"dev.json": [{"sentence1": "甲", "sentence2": "乙", "label": "0"}]},
        ("split", "text", "second", "label"),
        [("validation", "甲", "乙", "0")],
    ),
    "ocnli": ({"train.50k.json": PAIRS}, ("text", "label"), [("丙", "neutral")]),
    "csl": (
        {"train.json": [{"abst": "文", "keyword": ["a", "b"], "label": "1"}]},
        ("text", "second"),
        [("文", "a b")],
    ),
    "wsc": (
        {"train.json": [{"text": "他说", "target": SPANS, "label": "true"}]},
        ("text", "second", "label"),
        [("他说", "他：王", "true")],
    ),
    "chid": (
        {"train.json": [CHID], "train_answer.json": {"#idiom000001#": 1, "#idiom000002#": 0}},
        ("key", "text", "label"),
        [("#idiom000001#", "甲#idiom000001#乙丙", 1), ("#idiom000002#", "甲乙#idiom000002#丙", 0)],
    ),
    "c3": (
        {"m-train.json": C3},
        ("text", "choices", "label"),
        [("男：好。\n女：走吧。", ["去哪？ 家", "去哪？ 学校"], 1)],
    ),
    "cmrc2018": (
        {"train.json": CMRC},
        ("key", "question", "text", "answers"),
        [("q1", "首都？", "北京是首都。", [ANSWER])],
    ),
}


def dump(content: Any) -> str:
    """A list of rows as lines of JSON, C3's entry as a list of one, anything else as it is."""
    if content is C3:
        return json.dumps([content], ensure_ascii=False)
    if isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False)
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in content)


@pytest.mark.parametrize("task", CLUE_FILES)
def test_clue(tmp_path: Path, task: str) -> None:
    files, columns, expected = CLUE_FILES[task]
    folder = write(tmp_path / task, {name: dump(value) for name, value in files.items()})
    assert rows(f"clue:{folder}", *columns) == expected


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_other_separators_of_unicode_are_parts_of_texts(tmp_path: Path, mark: str) -> None:
    text = f"one{mark}two"
    tsv = f"sentence\tlabel\n{text}\t1\nthree\t0\n"
    glue = write(tmp_path / "SST-2", {"train.tsv": tsv})
    assert rows(f"glue:{glue}", "text", "label") == [(text, "1"), ("three", "0")]
    if mark < " ":
        return  # JSON escapes control characters
    lines = [{"sentence": text, "label": 1}, {"sentence": "three", "label": 0}]
    clue = write(tmp_path / "tnews", {"train.json": dump(lines)})
    assert rows(f"clue:{clue}", "text", "label") == [(text, 1), ("three", 0)]


def test_squad(tmp_path: Path) -> None:
    qas = [
        {"id": "1", "question": "who", "answers": [{"text": "b", "answer_start": 2}]},
        {"id": "2", "question": "when", "is_impossible": True, "answers": []},
    ]
    content = {"data": [{"title": "t", "paragraphs": [{"context": "a b", "qas": qas}]}]}
    file = tmp_path / "train-v2.0.json"
    file.write_text(json.dumps(content))
    answers = [[{"text": "b", "answer_start": 2}], []]
    assert rows(f"squad:{file}", "key", "question", "answers") == [
        ("1", "who", answers[0]),
        ("2", "when", answers[1]),
    ]
    data = DataConfig.parse({"path": {"train": f"squad:{file}"}})
    assert len(open_source(data, "train", ("question", "text", "answers"))) == 2


def test_vqa(tmp_path: Path) -> None:
    # the form of https://visualqa.org/vqa_v2_dataset.html
    asked = [
        {"image_id": 9, "question": "What colour is it?", "question_id": 9001},
        {"image_id": 9, "question": "Is it red?", "question_id": 9002},
    ]
    people = ["red", *["dark red"] * 8, "brown"]
    answers = [{"answer": answer, "answer_id": i} for i, answer in enumerate(people, 1)]
    told = [
        {
            "question_id": 9001,
            "image_id": 9,
            "answers": answers,
            "answer_type": "other",
            "question_type": "what colour",
        }
    ]
    files = {}
    for part in ("train2014", "test-dev2015"):
        head = {"data_subtype": part}
        questions = json.dumps({**head, "questions": asked})
        files[f"v2_OpenEnded_mscoco_{part}_questions.json"] = questions
        if part == "train2014":
            content = json.dumps({**head, "annotations": told})
            files[f"v2_mscoco_{part}_annotations.json"] = content
    path = f"vqa:{write(tmp_path / 'vqa', files)}"
    fields = ("image", "question", "answer", "type")
    first, second = open_source(DataConfig(path=path), "train", fields)
    place = tmp_path / "vqa" / "train2014" / "COCO_train2014_000000000009.jpg"
    assert first == {
        "key": "9001",
        "image": {"bytes": None, "path": str(place)},
        "question": "What colour is it?",
        "answer": ["dark red"] * 8 + ["brown", "red"],
        "type": "other",
    }
    assert second["answer"] is None and second["type"] is None
    test = open_source(DataConfig(path=path), "test", fields)
    assert len(test) == 2 and test[0]["image"]["path"].endswith(
        "test2015/COCO_test2015_000000000009.jpg"
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("vqa:{}/tnews", "holds no file of questions; expected the files as they are published"),
        ("vqa:{}/broken", "not the questions of VQA v2: KeyError 'data_subtype'"),
        ("glue:{}/ColA2", "unknown task of the benchmark 'cola2'; did you mean 'cola'"),
        ("glue:{}/CoLA", "no such folder"),
        ("glue:{}/SST-2", "holds none of train.tsv, dev.tsv, test.tsv"),
        ("glue:{}/RTE", "no column 'sentence2'; did you mean 'sentence1'"),
        ("clue:{}/tnews", "holds none of train.json, dev.json"),
        ("squad:{}/x.json", "no such file"),
        ("squad:{}/RTE/train.tsv", "not JSON"),
    ],
)
def test_what_is_not_as_published(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "tnews").mkdir()
    write(tmp_path / "broken", {"v2_questions.json": '{"questions": []}'})
    write(tmp_path / "RTE", {"train.tsv": "index\tsentence1\tlabel\n0\ta\tb\n"})
    with pytest.raises(ConfigError, match=message):
        open_table(path.format(tmp_path))

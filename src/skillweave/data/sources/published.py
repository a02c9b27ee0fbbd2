"""Benchmarks as they are published: `glue:FOLDER/CoLA`, `clue:FOLDER/tnews`, `squad:FILE.json`,
`vqa:FOLDER`.

The training file of a folder is the split train, the development file validation (on which
published results without a server are measured), and the test file test. Fields are those of the
tasks: `text`, `second`, `label` or `score`; `question`, `text` and `answers`; `text`, `choices` or
`candidates`, and `label`; `image`, `question`, `answer` and `type`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillweave.config.base import ConfigError, choose, nearest
from skillweave.config.errors import reading
from skillweave.config.reading import lines_of, read_lines
from skillweave.data.sources.base import KINDS, PATH_KINDS, MemoryTable, Row, Skipped, Table

Files = list[tuple[str, Path]]
"""Split and path of each file of a benchmark."""


@dataclass(frozen=True)
class GlueTask:
    """The columns of a GLUE task.

    `header`: the names of the columns of files without a header. `development`: the development
    files.
    """

    text: str
    second: str = ""
    label: str = "label"
    score: bool = False
    header: tuple[str, ...] = ()
    development: tuple[str, ...] = ("dev.tsv",)


GLUE = {
    "CoLA": GlueTask("sentence", header=("source", "label", "star", "sentence")),
    "SST-2": GlueTask("sentence"),
    "MRPC": GlueTask("#1 String", "#2 String", "Quality"),
    "QQP": GlueTask("question1", "question2", "is_duplicate"),
    "STS-B": GlueTask("sentence1", "sentence2", "score", score=True),
    "MNLI": GlueTask(
        "sentence1",
        "sentence2",
        "gold_label",
        development=("dev_matched.tsv", "dev_mismatched.tsv"),
    ),
    "QNLI": GlueTask("question", "sentence"),
    "RTE": GlueTask("sentence1", "sentence2"),
    "WNLI": GlueTask("sentence1", "sentence2"),
}
"""Folder of a task → its columns (gluebenchmark.com)."""


PATH_KINDS.update(("glue", "clue", "squad", "vqa"))


@KINDS.register("glue")
def open_glue(name: str, path: str) -> Table:
    """The folder of a GLUE task with train.tsv, dev.tsv and, if present, test.tsv. Raises
    ConfigError for another folder."""
    folder, task = _find_task(name, path, GLUE)
    names = {"train": ["train.tsv"], "validation": list(task.development), "test": ["test.tsv"]}
    rows: list[Row] = []
    skipped: Skipped = []
    for split, file in _find_files(folder, names, path):
        for number, cells in _read_tsv(file, task, split == "test"):
            key = f"{file.name}:{number}"
            if isinstance(cells, str):
                skipped.append((key, cells))
                continue
            row = {"key": key, "split": split, "text": cells.get(task.text)}
            if task.second:
                row["second"] = cells.get(task.second)
            row["score" if task.score else "label"] = cells.get(task.label)
            rows.append(row)
    return MemoryTable(path, rows, skipped)


def _read_tsv(file: Path, task: GlueTask, test: bool) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Line and cells of each row, or its fault. Quotation marks are text, as GLUE quotes
    nothing."""
    lines = enumerate(read_lines(file), 1)
    header = list(task.header)
    if test or not header:
        header = next(lines)[1].split("\t")
    for column in (task.text, task.second):
        if column and column not in header:
            raise ConfigError(
                f"{file}: no column {column!r}{nearest(column, header)}; expected the file as GLUE"
                " publishes it"
            )
    for number, line in lines:
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) < len(header):
            yield number, f"{len(cells)} cells where there are {len(header)}"
        else:  # some lines of SNLI in MNLI have more
            yield number, dict(zip(header, cells, strict=False))


def _plain(*columns: str) -> Callable[[Row], Iterable[Row]]:
    """One row per entry: `text`, and `second` where two columns are named."""

    def read(row: Row) -> Iterable[Row]:
        fields = dict(zip(("text", "second"), (row[column] for column in columns), strict=False))
        yield {**fields, "label": row.get("label")}

    return read


def _csl(row: Row) -> Iterable[Row]:
    yield {"text": row["abst"], "second": " ".join(row["keyword"]), "label": row.get("label")}


def _wsc(row: Row) -> Iterable[Row]:
    """The name and the pronoun are the second text."""
    target = row["target"]
    second = f"{target['span2_text']}：{target['span1_text']}"
    yield {"text": row["text"], "second": second, "label": row.get("label")}


def _chid(row: Row) -> Iterable[Row]:
    """One row per blank. The other blanks of the same text are removed from it."""
    for content in row["content"]:
        head, *parts = content.split("#idiom")
        numbers, texts = ([part.partition("#")[side] for part in parts] for side in (0, 2))
        for i, number in enumerate(numbers):
            blank = f"#idiom{number}#"
            yield {
                "key": blank,
                "text": f"{head}{''.join(texts[:i])}{blank}{''.join(texts[i:])}",
                "candidates": row["candidates"],
                "label": row.get("answers", {}).get(blank),
            }


def _c3(row: list[Any]) -> Iterable[Row]:
    """One row per question: the passage, and the question with each of its choices."""
    passage, questions = "\n".join(row[0]), row[1]
    for question in questions:
        choices, answer = question["choice"], question.get("answer")
        yield {
            "text": passage,
            "choices": [f"{question['question']} {choice}" for choice in choices],
            "label": choices.index(answer) if answer in choices else None,
        }


def _squad(article: Row) -> Iterable[Row]:
    """One row per question of each paragraph. The answers of CMRC have the same form."""
    for paragraph in article.get("paragraphs", [article]):
        for question in paragraph["qas"]:
            answers = [] if question.get("is_impossible") else question.get("answers", [])
            unique = dict.fromkeys((a["text"], a["answer_start"]) for a in answers)
            yield {
                "key": str(question["id"]),
                "question": question["question"],
                "text": paragraph["context"],
                "answers": [{"text": text, "answer_start": start} for text, start in unique],
            }


CLUE: dict[str, Callable[[Any], Iterable[Row]]] = {
    "afqmc": _plain("sentence1", "sentence2"),
    "tnews": _plain("sentence"),
    "iflytek": _plain("sentence"),
    "cmnli": _plain("sentence1", "sentence2"),
    "ocnli": _plain("sentence1", "sentence2"),
    "csl": _csl,
    "wsc": _wsc,
    "chid": _chid,
    "c3": _c3,
    "cmrc2018": _squad,
    "drcd": _squad,
}
"""Folder of a task → a function that makes rows of an entry of its files (cluebenchmarks.com)."""


@KINDS.register("clue")
def open_clue(name: str, path: str) -> Table:
    """The folder of a CLUE task with train, dev and, if present, test files, of lines of JSON or
    one list. Raises ConfigError for another folder."""
    folder, read = _find_task(name, path, CLUE)
    files = sorted(f.name for f in folder.glob("*.json*") if "answer" not in f.name)
    prefixes = {"train": "train", "validation": "dev", "test": "test"}
    names = {split: [f for f in files if prefix in f] for split, prefix in prefixes.items()}
    rows: list[Row] = []
    skipped: Skipped = []
    for split, file in _find_files(folder, names, path):
        answers = _read_answers(file)
        for number, entry in _read_entries(file):
            key = f"{file.name}:{number}"
            try:
                entry = {**entry, "answers": answers} if answers else entry
                made = [
                    {"key": f"{key}.{i}", "split": split, **row}
                    for i, row in enumerate(read(entry))
                ]
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                skipped.append((key, f"not as published: {type(error).__name__} {error}"))
                continue
            # annotators did not agree
            rows += [row for row in made if row.get("label") not in ("-", -1, "-1")]
    return MemoryTable(path, rows, skipped)


def _read_answers(file: Path) -> Mapping[str, int]:
    """ChID has the answers in a file of their own, such as `train_answer.json`."""
    answers = file.with_name(f"{file.stem}_answer.json")
    return json.loads(answers.read_text("utf-8")) if answers.is_file() else {}


def _read_entries(file: Path) -> Iterator[tuple[int, Any]]:
    """Number and content of each line of JSON, or of each entry of a list, which SQuAD has under
    `data`."""
    text = file.read_text("utf-8-sig")
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = None
    if isinstance(whole, dict) and "data" in whole:
        whole = whole["data"]
    if isinstance(whole, list):
        yield from enumerate(whole, 1)
        return
    for number, line in enumerate(lines_of(text), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(
                    f"{file}:{number}: not JSON ({error.msg}); expected lines of JSON, or one list"
                ) from None


@KINDS.register("squad")
def open_squad(name: str, path: str) -> Table:
    """Questions and answers of a file in the format of SQuAD. Raises ConfigError for another
    format."""
    file = Path(name).expanduser()
    if not file.is_file():
        raise ConfigError(f"{path}: no such file {file}; give squad:FILE.json, one for each split")
    try:
        rows = [row for _, article in _read_entries(file) for row in _squad(article)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: not in SQuAD's form: {type(error).__name__} {error}") from None
    return MemoryTable(path, rows)


@KINDS.register("vqa")
def open_vqa(name: str, path: str) -> Table:
    """The questions of VQA v2 about pictures of COCO: a folder with files of questions and of
    annotations, and a folder of pictures for each of COCO's parts, such as `train2014`. `type` is
    the type of the answer. Raises ConfigError for another folder."""
    folder = Path(name).expanduser()
    asked, told = (
        _by_part(sorted(folder.glob(f"*{kind}*.json")), kind)
        for kind in ("questions", "annotations")
    )
    if not asked:
        raise ConfigError(
            f"{path}: {folder} holds no file of questions; expected the files as they are"
            " published, such as v2_OpenEnded_mscoco_train2014_questions.json"
        )
    rows = [
        row
        for part, questions in asked.items()
        for row in _vqa_rows(part, questions, told.get(part, []))
    ]
    table = MemoryTable(path, rows)
    table.folder = folder
    return table


def _by_part(files: Iterable[Path], kind: str) -> dict[str, list[Any]]:
    """The part of COCO of each file, such as `train2014` → its entries."""
    found = {}
    for file in files:
        with reading(file, f"the {kind} of VQA v2"):
            content = json.loads(file.read_text("utf-8-sig"))
            found[content["data_subtype"]] = content[kind]
    return found


def _vqa_rows(part: str, questions: Iterable[Row], annotations: Iterable[Row]) -> Iterator[Row]:
    """Ten people answered each question; the commonest answer comes first."""
    told = {one["question_id"]: one for one in annotations}
    place = part.replace("-dev", "")
    for question in questions:
        about = told.get(question["question_id"], {})
        answers = [one["answer"] for one in about.get("answers", ())]
        yield {
            "key": str(question["question_id"]),
            "split": re.split(r"\W|\d", part)[0],
            "group": str(question["image_id"]),
            "image": f"{place}/COCO_{place}_{question['image_id']:012d}.jpg",
            "question": question["question"],
            "answer": sorted(answers, key=lambda one: (-answers.count(one), one)) or None,
            "type": about.get("answer_type"),
            "question_type": about.get("question_type"),
        }


def _find_task(name: str, path: str, tasks: Mapping[str, Any]) -> tuple[Path, Any]:
    """The folder, and the task of its name in any case."""
    folder = Path(name).expanduser()
    known = {name.lower(): task for name, task in tasks.items()}
    task = choose(known, folder.name.lower().removesuffix("_public"), "task of the benchmark")
    if not folder.is_dir():
        raise ConfigError(f"{path}: no such folder {folder}; download the task and give its folder")
    return folder, task


def _find_files(folder: Path, names: Mapping[str, list[str]], path: str) -> Files:
    """The files of each split that exist. Raises ConfigError when there are none."""
    every = [(split, folder / name) for split, files in names.items() for name in files]
    found = [(split, file) for split, file in every if file.is_file()]
    if not found:
        expected = ", ".join(file.name for _, file in every) or "train.json, dev.json"
        raise ConfigError(
            f"{path}: {folder} holds none of {expected}; expected the files as they are published"
        )
    return found

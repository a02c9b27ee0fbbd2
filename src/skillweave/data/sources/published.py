"""Benchmarks of text understanding as they are published: `glue:FOLDER/CoLA`, `clue:FOLDER/tnews`,
`squad:FILE.json`.

A folder's training file is the split train, its development file validation (on which published
figures without a server are measured), its test file test where it has labels or is to be predicted
for. Fields are those of the tasks: `text`, `second`, `label` or `score`; `question`, `text` and
`answers`; `text`, `choices` or `candidates`, and `label`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillweave.config.base import ConfigError, choose, nearest
from skillweave.data.sources.base import MemoryTable, Table

Row = dict[str, Any]


@dataclass(frozen=True)
class Tsv:
    """A GLUE task's columns. `header`: names of the columns of files that have none. `development`:
    its development files."""

    text: str
    second: str = ""
    label: str = "label"
    score: bool = False
    header: tuple[str, ...] = ()
    development: tuple[str, ...] = ("dev.tsv",)


GLUE = {
    "CoLA": Tsv("sentence", header=("source", "label", "star", "sentence")),
    "SST-2": Tsv("sentence"),
    "MRPC": Tsv("#1 String", "#2 String", "Quality"),
    "QQP": Tsv("question1", "question2", "is_duplicate"),
    "STS-B": Tsv("sentence1", "sentence2", "score", score=True),
    "MNLI": Tsv(
        "sentence1",
        "sentence2",
        "gold_label",
        development=("dev_matched.tsv", "dev_mismatched.tsv"),
    ),
    "QNLI": Tsv("question", "sentence"),
    "RTE": Tsv("sentence1", "sentence2"),
    "WNLI": Tsv("sentence1", "sentence2"),
}
"""Folder of a task → its columns (gluebenchmark.com)."""


def open_glue(name: str, where: str) -> Table:
    """A GLUE task's folder with train.tsv, dev.tsv and, if there, test.tsv. Raises ConfigError for
    another folder."""
    folder, task = _folder(name, where, GLUE)
    files = {"train": ["train.tsv"], "validation": list(task.development), "test": ["test.tsv"]}
    rows, skipped = [], []
    for split, file in _files(folder, files, where):
        for number, cells in _tsv(file, task, split == "test"):
            if isinstance(cells, str):
                skipped.append((f"{file.name}:{number}", cells))
                continue
            given = {
                "text": cells.get(task.text),
                **({"second": cells.get(task.second)} if task.second else {}),
            }
            given["score" if task.score else "label"] = cells.get(task.label)
            rows.append({"key": f"{file.name}:{number}", "split": split, **given})
    return MemoryTable(where, rows, skipped)


def _tsv(file: Path, task: Tsv, test: bool) -> Iterator[tuple[int, Row | str]]:
    """Line and cells of each row, or what is wrong with it. Nothing is quoted: quotation marks are
    text."""
    lines = file.read_text("utf-8-sig").split("\n")
    header = (
        list(task.header) if task.header and not test else lines.pop(0).rstrip("\r").split("\t")
    )
    wanted = [column for column in (task.text, task.second) if column and column not in header]
    if wanted:
        raise ConfigError(
            f"{file}: no column {wanted[0]!r}{nearest(wanted[0], header)}; expected the file as"
            " GLUE publishes it"
        )
    first = 1 if task.header and not test else 2
    for number, line in enumerate(lines, first):
        cells = line.rstrip("\r").split("\t")
        if line.strip():
            fits = len(cells) >= len(header)  # some of SNLI's lines in MNLI have more
            yield (
                number,
                (
                    dict(zip(header, cells, strict=False))
                    if fits
                    else f"{len(cells)} cells where there are {len(header)}"
                ),
            )


def _plain(*columns: str) -> Callable[[Row], Iterable[Row]]:
    """One row per line of JSON: `text`, and `second` where two columns are named."""

    def read(row: Row) -> Iterable[Row]:
        fields = dict(zip(("text", "second"), (row[column] for column in columns), strict=False))
        yield {**fields, "label": row.get("label")}

    return read


def _csl(row: Row) -> Iterable[Row]:
    yield {"text": row["abst"], "second": " ".join(row["keyword"]), "label": row.get("label")}


def _wsc(row: Row) -> Iterable[Row]:
    """The name and the pronoun are the second text."""
    target = row["target"]
    yield {
        "text": row["text"],
        "second": f"{target['span2_text']}：{target['span1_text']}",
        "label": row.get("label"),
    }


def _chid(row: Row) -> Iterable[Row]:
    """A row for each blank; other blanks of the same text are left out of it."""
    for content in row["content"]:
        parts = content.split("#idiom")
        for i, part in enumerate(parts[1:], 1):
            blank = f"#idiom{part.partition('#')[0]}#"
            before = parts[0] + "".join(p.partition("#")[2] for p in parts[1:i])
            after = part.partition("#")[2] + "".join(p.partition("#")[2] for p in parts[i + 1 :])
            answer = row.get("answers", {}).get(blank)
            yield {
                "key": blank,
                "text": f"{before}{blank}{after}",
                "candidates": row["candidates"],
                "label": answer,
            }


def _c3(row: list[Any]) -> Iterable[Row]:
    """A row for each question: the passage, and the question with each of its choices."""
    passage, questions = "\n".join(row[0]), row[1]
    for question in questions:
        choices = [f"{question['question']} {choice}" for choice in question["choice"]]
        answer = (
            question["choice"].index(question["answer"])
            if question.get("answer") in question["choice"]
            else None
        )
        yield {"text": passage, "choices": choices, "label": answer}


def _squad(article: Row) -> Iterable[Row]:
    """A row for each question of each paragraph; CMRC's answers have the same form."""
    paragraphs = article.get("paragraphs", [article])
    for paragraph in paragraphs:
        for question in paragraph["qas"]:
            given = [] if question.get("is_impossible") else question.get("answers", [])
            unique = {(a["text"], a["answer_start"]): a for a in given}.values()
            row = {
                "key": str(question["id"]),
                "question": question["question"],
                "text": paragraph["context"],
            }
            yield {
                **row,
                "answers": [{"text": a["text"], "answer_start": a["answer_start"]} for a in unique],
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
"""Folder of a task → what makes rows of an entry of its files (cluebenchmarks.com)."""


def open_clue(name: str, where: str) -> Table:
    """A CLUE task's folder with train, dev and, if there, test files, of lines of JSON or one list.
    Raises ConfigError."""
    folder, read = _folder(name, where, CLUE)
    prefixes = {"train": "train", "validation": "dev", "test": "test"}
    names = (
        sorted(file.name for file in folder.glob("*.json*") if "answer" not in file.name)
        if folder.is_dir()
        else []
    )
    found = {
        split: [name for name in names if prefix in name] for split, prefix in prefixes.items()
    }
    rows, skipped = [], []
    for split, file in _files(folder, found, where):
        answers = _answers(file)
        for number, entry in _entries(file):
            try:
                entry = {**entry, "answers": answers} if answers else entry
                made = [
                    {"key": f"{file.name}:{number}.{i}", "split": split, **row}
                    for i, row in enumerate(read(entry))
                ]
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                skipped.append(
                    (f"{file.name}:{number}", f"not as published: {type(error).__name__} {error}")
                )
                continue
            # annotators did not agree
            rows += [row for row in made if row.get("label") not in ("-", -1, "-1")]
    return MemoryTable(where, rows, skipped)


def _answers(file: Path) -> Mapping[str, int]:
    """ChID's answers stand in a file of their own, `train_answer.json` or `train_answer.csv`."""
    beside = file.with_name(f"{file.stem}_answer.json")
    return json.loads(beside.read_text("utf-8")) if beside.is_file() else {}


def _entries(file: Path) -> Iterator[tuple[int, Any]]:
    """Number and content of each line of JSON, or of each entry of a list (SQuAD's stands under
    `data`)."""
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
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(
                    f"{file}:{number}: not JSON ({error.msg}); expected lines of JSON, or one list"
                ) from None


def open_squad(name: str, where: str) -> Table:
    """Questions and answers of a file in SQuAD's form. Raises ConfigError for another one."""
    file = Path(name).expanduser()
    if not file.is_file():
        raise ConfigError(f"{where}: no such file {file}; give squad:FILE.json, one for each split")
    try:
        rows = [row for _, article in _entries(file) for row in _squad(article)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: not in SQuAD's form: {type(error).__name__} {error}") from None
    return MemoryTable(where, rows)


def _folder(name: str, where: str, tasks: Mapping[str, Any]) -> tuple[Path, Any]:
    """The folder and the task that its name says, in any case."""
    folder = Path(name).expanduser()
    known = {name.lower(): read for name, read in tasks.items()}
    task = choose(known, folder.name.lower().removesuffix("_public"), "task of the benchmark")
    if not folder.is_dir():
        raise ConfigError(
            f"{where}: no such folder {folder}; download the task and give its folder"
        )
    return folder, task


def _files(
    folder: Path, names: Mapping[str, Iterable[str]], where: str
) -> Iterator[tuple[str, Path]]:
    found = [
        (split, folder / name)
        for split, files in names.items()
        for name in files
        if (folder / name).is_file()
    ]
    if not found:
        expected = (
            ", ".join(name for files in names.values() for name in files) or "train.json, dev.json"
        )
        raise ConfigError(
            f"{where}: {folder} holds none of {expected}; expected the files as they are published"
        )
    return iter(found)

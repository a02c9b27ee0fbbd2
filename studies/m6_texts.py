"""What the models of studies/m6.py are asked to write, and the tables of what they wrote (M6,
Figures 5 and 6).

All questions were chosen before a model had answered one. Every answer is shown, good or bad.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from pages import markdown

Row = dict[str, Any]


class Question(NamedTuple):
    """Texts that are asked for: `title` and `note` on the page, the `task`, the system of the run
    (`small`, or a fine-tuned one), and the `rows`. `pictures`: each row is asked of each picture.
    `options`: of `skillweave generate`."""

    title: str
    note: str
    task: str
    run: str
    rows: Sequence[Row]
    pictures: bool = False
    options: Sequence[str] = ()


DRAWN = ("--do-sample", "--top-p", "0.9", "--seed", "0", "--max-new-tokens", "48")
QUESTIONS: Mapping[str, Question] = {
    "infilling": Question(
        "A text with gaps",
        "Each [MASK] stands for a span of any length; the model writes the whole text.",
        "text_denoising",
        "small",
        [
            {"text": text}
            for text in (
                "酒店的服务[MASK]，下次还会来。",
                "房间[MASK]，隔音也不好，[MASK]不会再来。",
                "这本书[MASK]，值得一读。",
                "电脑的屏幕[MASK]，就是电池[MASK]。",
                "[MASK]，早餐也很丰富。",
                "牛奶的包装[MASK]，味道[MASK]。",
            )
        ],
    ),
    "answers": Question(
        "A question, in the way of Figure 6",
        "The model continues the prompt; tokens are drawn (top-p 0.9, seed 0).",
        "review_modelling",
        "small",
        [
            {"text": text}
            for text in (
                "这家酒店怎么样？回答：",
                "为什么喜欢这本书？回答：",
                "这台电脑值得买吗？回答：",
                "出国留学的理由是什么？回答：",
            )
        ],
        options=DRAWN,
    ),
    "poems": Question(
        "A poem",
        "The model continues the beginning; tokens are drawn (top-p 0.9, seed 0).",
        "language_modelling",
        "small",
        [{"text": text} for text in ("春风", "明月", "独坐")],
        options=DRAWN,
    ),
    "pictures": Question(
        "A picture without fine-tuning, in the way of Figure 5",
        (
            "Pictures of the test split. The model writes after nothing, and after a prompt that asks"
            " for the thing or its colour. — is an empty text."
        ),
        "image_captioning",
        "small",
        [{"prompt": prompt} for prompt in ("", "这是什么？回答：", "它是什么颜色？回答：")],
        pictures=True,
        options=("--max-new-tokens", "24"),
    ),
    "names": Question(
        "The name of a picture after fine-tuning",
        "The same pictures, with five beams. No training picture has the name of a test picture.",
        "image_to_text",
        "pretrained",
        [{}],
        pictures=True,
    ),
}
PICTURES = 12
"""Pictures of the test split, at equal distances in the order of their keys."""


def emoji_of(key: str) -> str:
    """The characters of an emoji, from the key of its row."""
    return "".join(chr(int(number, 16)) for number in key.split("-"))


def pictures(pack: Path, folder: Path) -> list[Row]:
    """The pictures as files in a folder (named from there), each with its `emoji` and its right `name`."""
    names = ["key", "split", "image", "name_zh"]
    rows = [r for r in pq.read_table(pack, columns=names).to_pylist() if r["split"] == "test"]
    rows.sort(key=lambda row: row["key"])
    found = []
    for row in rows[:: len(rows) // PICTURES][:PICTURES]:
        file = folder / f"{row['key']}.png"
        file.write_bytes(row["image"]["bytes"])
        found.append({"emoji": emoji_of(row["key"]), "name": row["name_zh"], "image": file.name})
    return found


def write_inputs(pack: Path, folder: Path) -> None:
    """NAME.jsonl for each question, and the pictures beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = pictures(pack, folder)
    for name, question in QUESTIONS.items():
        given = [{}] if not question.pictures else seen
        rows = [{**picture, **row} for picture in given for row in question.rows]
        lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, "utf-8")


def text_tables(answers: Mapping[str, Sequence[Row]]) -> list[str]:
    """A section for each question that was answered. `answers`: the rows that `skillweave generate`
    wrote, by question."""
    parts = []
    for name, question in QUESTIONS.items():
        if rows := answers.get(name):
            shown = picture_table(rows) if question.pictures else text_table(rows)
            parts += [f"### {question.title}", question.note, shown]
    return parts


def text_table(rows: Sequence[Row]) -> str:
    """What was given and what was written."""
    return markdown(["given", "written"], [[cell(row["text"]), cell(written(row))] for row in rows])


def picture_table(rows: Sequence[Row]) -> str:
    """A picture in each row, with its right name and what was written after each prompt."""
    prompts = list(dict.fromkeys(row.get("prompt", "") for row in rows))
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row["emoji"], row["name"]), []).append(cell(written(row)))
    heads = [f"after {prompt}" if prompt else "written" for prompt in prompts]
    table = [[emoji, cell(name), *texts] for (emoji, name), texts in found.items()]
    return markdown(["picture", "right name", *heads], table)


def written(row: Row) -> str:
    """The text of a row, beside which there may be a `text` that was given. Ends the program where
    there is an error in its place."""
    if "error" in row:
        sys.exit(f"a question was not answered: {row['error']}; remove the file and start again")
    return row.get("predicted_text", row.get("text", ""))


def cell(text: str) -> str:
    """A text in a table; — for none."""
    return " ".join(text.replace("|", "\\|").split()) or "—"

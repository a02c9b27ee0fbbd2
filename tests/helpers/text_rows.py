"""Made rows for every task over texts: each answer can be read off its text, so that a model can
learn it."""

import json
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

COLOURS, THINGS = ("red", "blue", "green", "white"), ("cat", "dog", "car", "hat", "sun")
IDIOMS = [
    "一心一意",
    "三心二意",
    "五光十色",
    "七上八下",
    "十全十美",
    "百发百中",
    "千方百计",
    "万无一失",
    "九牛一毛",
    "四面八方",
]


def _pair(i: int, colour: str, thing: str) -> dict[str, Any]:
    return {
        "text": f"the {colour} {thing}",
        "second": f"{colour} things" if i % 2 else f"a {thing} of {colour}",
    }


def _reading(i: int, colour: str, thing: str) -> dict[str, Any]:
    text = f"here is a {colour} {thing}"
    return {
        "question": f"what is {colour}",
        "text": text,
        "answers": {"text": [thing], "answer_start": [text.index(thing)]},
    }


ROWS: dict[str, Callable[[int, str, str], dict[str, Any]]] = {
    "text_pair_classification": lambda i, c, t: {
        **_pair(i, c, t),
        "label": "same" if i % 2 else "other",
    },
    "text_multi_label": lambda i, c, t: {"text": f"the {c} {t}", "labels": [c, t]},
    "text_regression": lambda i, c, t: {"text": f"the {c} {t}", "score": len(t) + COLOURS.index(c)},
    "text_pair_regression": lambda i, c, t: {**_pair(i, c, t), "score": i % 2},
    "sequence_labelling": lambda i, c, t: {
        "text": ["the", c, t],
        "tags": ["O", "B-COLOUR", "B-THING"],
    },
    "reading_comprehension": _reading,
    "multiple_choice": lambda i, c, t: {
        "text": f"the {c} {t}",
        "choices": [c, "black", "grey"],
        "label": 0,
    },
    "idiom_cloze": lambda i, c, t: {
        "text": f"他{c}#idiom#{t}。",
        "candidates": IDIOMS,
        "label": i % 10,
    },
    "text_prompting": lambda i, c, t: {
        "text": f"the {c} {t}",
        "label": "红蓝绿白"[COLOURS.index(c)],
    },
    "perplexity_classification": lambda i, c, t: {
        "text": f"the {c} {t}",
        "label": "红蓝绿白"[COLOURS.index(c)],
    },
    "text_matching": lambda i, c, t: {"text": f"the {c} {t}", "second": f"a {t} of {c}"},
    "text_to_text": lambda i, c, t: {"text": f"the {c} {t}", "answer": f"a {t} of {c}"},
    "text_similarity": lambda i, c, t: {**_pair(i, c, t), "score": 5 * (i % 2)},
    "text_distillation": lambda i, c, t: {
        "text": f"the {c} {t}",
        "vector": [float(x == c) for x in COLOURS] + [float(x == t) for x in THINGS] + [0.5] * 15,
    },
    "simcse": lambda i, c, t: {"text": f"the {c} {t}"},
}


def text_rows(task: str, least: int = 40) -> list[dict[str, Any]]:
    """At least so many rows, alike in train and test."""
    pairs = list(product(COLOURS, THINGS)) * (-(-least // 20))
    return [{"key": str(i), **ROWS[task](i, *pair)} for i, pair in enumerate(pairs)]


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="skillweave-text-rows-"))


def text_sources() -> dict[str, dict[str, Any]]:
    """Task → a recipe's `data`, with files in a temporary folder."""
    sources = {}
    for task in ROWS:
        file = _folder() / f"{task}.jsonl"
        file.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in text_rows(task)), "utf-8"
        )
        sources[task] = {"path": str(file)}
    return sources

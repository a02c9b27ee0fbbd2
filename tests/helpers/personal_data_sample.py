"""The labelled sample of personal data: lines in which `[[KIND|VALUE]]` marks what is personal.

The names and numbers are made up. The numbers were drawn at random, with right check digits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from skillweave.corpus.steps.personal_data import Found, find

MARK = re.compile(r"\[\[(\w+)\|(.*?)\]\]")


class Score(NamedTuple):
    """`faults`: each line in which something is missed or wrong, with both."""

    precision: float
    recall: float
    found: int
    marked: int
    faults: list[tuple[str, set[Found], set[Found]]]


def read_sample(file: Path) -> list[tuple[str, set[Found]]]:
    """The lines of a sample without marks, each with what is marked in it."""
    sample = []
    for line in file.read_text("utf-8").splitlines():
        text, marked, end = "", set(), 0
        for match in MARK.finditer(line):
            text += line[end : match.start()]
            marked.add(Found(match[1], len(text), len(text) + len(match[2])))
            text += match[2]
            end = match.end()
        sample.append((text + line[end:], marked))
    return sample


def score(sample: Sequence[tuple[str, set[Found]]]) -> Score:
    """Precision and recall; something counts as found if kind, begin and end are right."""
    right = found_count = marked_count = 0
    faults = []
    for text, marked in sample:
        found = {*find(text)}
        right += len(found & marked)
        found_count += len(found)
        marked_count += len(marked)
        if found != marked:
            faults.append((text, marked - found, found - marked))
    return Score(right / found_count, right / marked_count, found_count, marked_count, faults)

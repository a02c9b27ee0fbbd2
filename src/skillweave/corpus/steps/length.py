"""Step `length`: titles and texts that are too short or too long."""

from __future__ import annotations

from typing import Literal

from skillweave.config.base import Positive, Whole
from skillweave.corpus.step import STEPS, Drop, Result, Row, Step


@STEPS.register("length")
class Length(Step):
    """Drop short titles and texts (M6, section 2.3: topics under 5 and contents under 15
    characters)."""

    kind: Literal["length"] = "length"
    title_characters: Whole = 5
    """The fewest characters of a title. A row without a title keeps its text; 0 keeps all
    titles."""
    text_characters: Whole = 15
    """The fewest characters of a text."""
    most_characters: Positive | None = None
    """The most characters of a text. null: no limit."""

    def change(self, row: Row) -> Result:
        """A drop for a row out of these limits."""
        length = len(row["text"].strip())
        if length < self.text_characters:
            return Drop(f"text under {self.text_characters} characters", f"{length}")
        if self.most_characters is not None and length > self.most_characters:
            return Drop(f"text over {self.most_characters} characters", f"{length}")
        title = row.get("title")
        if title is not None and len(title.strip()) < self.title_characters:
            return Drop(f"title under {self.title_characters} characters", f"{len(title.strip())}")
        return None

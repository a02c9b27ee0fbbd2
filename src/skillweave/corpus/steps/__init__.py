"""The steps of the pipeline: each is a class that says what becomes of a row, and why."""

from skillweave.corpus.steps import (
    decontamination,
    duplicates,
    heuristics,
    language,
    length,
    models,
    pairs,
    perplexity,
    personal_data,
    pictures,
    repetition,
    secrets,
    text,
)

BUILT_IN = (
    text,
    length,
    language,
    heuristics,
    repetition,
    personal_data,
    secrets,
    decontamination,
    duplicates,
    perplexity,
    models,
    pictures,
    pairs,
)
"""The modules that register the steps of this package."""

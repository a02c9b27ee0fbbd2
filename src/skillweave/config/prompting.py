"""How a model that writes text does a task from a template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from skillweave.config.base import Config, ConfigError, Positive, Whole, nearest
from skillweave.config.layering import load_yaml

FILE_SUFFIXES = (".yaml", ".yml", ".json")
"""What the name of a file with a template ends with."""
FILE_KEYS = ("template", "prompting", "classes")
"""What such a file may hold."""

Normalization = Literal["sum", "token", "character", "text", "pmi"]


class PromptingConfig(Config):
    """What stands around a template, and how candidates are compared."""

    prefix: str = ""
    """Text before the template that the model reads in both directions, or that the encoder reads
    where there is a decoder. It may name fields as the template does. [MASK] in it is the mask
    token. M6 fills the blank of a cloze so (section 4.1.2). If empty, an encoder reads the template
    up to the first candidate."""
    normalization: Normalization = "token"
    """What makes candidates of unequal lengths comparable. `sum`: their log-likelihood. `token`,
    `character`: the same divided by their tokens or characters; by token, the best candidate has
    the lowest perplexity. `text`: the mean over all tokens of the complete text (M6 section 4.1.2).
    `pmi`: by how much the log-likelihood exceeds that after a template whose fields are empty (Zhao
    et al., arXiv 2102.09690; Holtzman et al., arXiv 2104.08315)."""
    negatives: Positive | None = None
    """In an evaluation, the right class competes with this many others, drawn for each sample; with
    all if absent. M6 draws 3."""
    repeats: Positive = 1
    """Draws of negatives for each sample. Their accuracy is averaged. M6 draws three times."""
    shots: Whole = 0
    """Worked examples before each question, drawn from the training split: this many of each class,
    or in all for a task without classes. Only for `evaluate --zero-shot`."""
    examples: list[str] = []
    """Worked examples before each question, as they are. Those of `shots` are added."""
    separator: str = "\n\n"
    """Stands after each worked example."""
    max_characters: Positive | None = None
    """Longest value of a field. Longer ones are cut, in worked examples too."""
    seed: Whole = 0
    """Of the negatives and the worked examples."""
    stop: list[str] = []
    """Texts at which a written answer ends, such as a line break."""
    max_answer_tokens: Positive = Field(default=32)
    """Longest answer that is written."""


def read_template(data: Mapping[str, Any]) -> dict[str, Any]:
    """A task's settings with those of the file that its `template` names, over which the task's own
    have priority; as they are where it names none. Raises ValueError for a file that cannot be
    used."""
    settings, name = dict(data), data.get("template")
    if not isinstance(name, str) or not name.strip().endswith(FILE_SUFFIXES):
        return settings
    file = Path(name.strip())
    if not file.is_file():
        raise ValueError(f"template: there is no file {file}; write its path, or the template")
    try:
        found = load_yaml(file)
    except ConfigError as error:
        raise ValueError(f"template: {error}") from None
    for key in found:
        if key not in FILE_KEYS:
            raise ValueError(f"template: {file}: unknown key {key!r}{nearest(key, FILE_KEYS)}")
    if not isinstance(found.get("template"), str):
        raise ValueError(f"template: {file} has no text under the key `template`")
    own = {key: value for key, value in settings.items() if key != "template"}
    merged = {**found, **own}
    if isinstance(found.get("prompting"), dict) and isinstance(own.get("prompting"), dict):
        merged["prompting"] = {**found["prompting"], **own["prompting"]}
    return merged

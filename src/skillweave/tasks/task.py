"""A task: which spans it has, what it learns, and how a raw row becomes an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from skillweave.batch import Example, Layout, Modality, Span
from skillweave.config.model import ModelConfig, SpanConfig
from skillweave.config.recipe import TaskConfig

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Tools:
    """What building an example may use: the processors by modality, the configurations, and other rows of the same split."""

    processors: Mapping[Modality, Any]
    model: ModelConfig
    config: TaskConfig
    target: Any
    units: Any = None
    draw: Callable[[np.random.Generator], Row] | None = None


Builder = Callable[[Row, Tools, np.random.Generator | None], Example]


@dataclass(frozen=True)
class Task:
    """An entry of the catalogue: data, not code, but for `build`.

    `target`: the kind of target it learns. `metric`: how it is judged. `fields`: what a row must hold; the first text field
    is what tokenisers are trained on. `candidates`: the label that picks one of the answers which the last pass encodes, `class`
    (a class by its name) or `words` (a wordpiece); None where answers are not encoded, or are the batch's own pairs.
    """

    name: str
    summary: str
    spans: tuple[Span, ...]
    target: str
    metric: str
    fields: tuple[str, ...]
    build: Builder = field(repr=False)
    pretraining: bool = False
    candidates: Literal["class", "words"] | None = None

    def layout(self, name: str) -> Layout:
        """The task's template under the name a recipe gave it."""
        return Layout(name, self.spans)

    @property
    def span_configs(self) -> list[SpanConfig]:
        """The spans as the model's configuration stores them."""
        return [
            SpanConfig(modality=s.modality, role=s.role, encoder_pass=s.encoder_pass, attention=s.attention) for s in self.spans
        ]

"""A task of a recipe: its data, its share of the mixture, and its options."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveFloat, field_validator

from skillweave.config.base import Config, Positive
from skillweave.config.data import AugmentConfig, DataConfig, MaskingConfig


class TaskSettings(Config):
    """What the inputs and answers of a task mean. The settings are saved with the model."""

    kind: str = ""
    """Entry of the task catalogue; the task's own name when absent."""
    classes: dict[str, str] = {}
    """Naming tasks and prompts: label in the data → its name as text, which the model encodes or
    expects at [MASK]; a list where both are the same. When empty, the labels of the training
    data."""
    decoder: bool = False
    """Classes, numbers and answers of texts: the decoder reads the text again, one position later,
    and the target reads the decoder's output. Classification pools its last token by default (BART
    section 3.1)."""
    choices: Positive | None = None
    """Most choices of a sample; those of the task's entry when absent (multiple choice 4, idiom
    cloze 10)."""
    template: str = "{text} [MASK]"
    """Prompts: what the model reads; [MASK] stands where the class's word belongs."""
    stride: Positive = 128
    """Reading comprehension: a text that is too long is read in windows that begin this many tokens
    apart."""

    @field_validator("classes", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        pairs = (
            value.items() if isinstance(value, dict) else ((label, label) for label in value or [])
        )
        classes = {str(label): str(name) for label, name in pairs}
        names = [name.strip() for name in classes.values()]
        if unclear := [name for name in names if not name or names.count(name) > 1]:
            raise ValueError(
                f"class name {unclear[0]!r} is empty or given twice; names must tell classes apart"
            )
        return classes


class TaskConfig(TaskSettings):
    """One task of the mixture."""

    target: str | None = None
    """Name in `model.targets`; the catalogue's default when absent."""
    data: DataConfig
    """Where its samples come from."""
    weight: PositiveFloat = 1.0
    """How often the task is drawn, relative to the others (SkillNet: 2/4/2/1/4)."""
    batch_size: Positive = 32
    """Samples per micro-batch and process."""
    batch_by: str | None = None
    """Column, such as an album. Samples with equal values come in the same training batch, so that
    the model learns what distinguishes them."""
    augment: AugmentConfig = AugmentConfig()
    """Changes to training samples."""
    masking: MaskingConfig = MaskingConfig()
    """What pretraining tasks mask, drawn anew each epoch."""
    pack: Positive | None = None
    """Masked text: training samples share rows of this many positions without seeing each other, so
    that rows have similar lengths; a row each when absent."""
    metrics: list[str] = []
    """Classes: further metrics, of `f1`, `macro_f1` and `matthews`. `f1` is that of the last class,
    such as 1 of 0 and 1 (GLUE)."""
    pool: Positive | None = None
    """Retrieval: size of the evaluation's candidate pool; the whole split when absent."""

    @property
    def settings(self) -> TaskSettings:
        """The settings that are saved with the model."""
        return TaskSettings(**{name: getattr(self, name) for name in TaskSettings.model_fields})

"""A task of a recipe: its data, its share of the mixture, and its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, field_validator, model_validator

from skillweave.config.base import Config, Positive, Whole
from skillweave.config.data import AugmentConfig, DataConfig, MaskingConfig
from skillweave.config.prompting import PromptingConfig, read_template


def _auto(value: Any) -> Any:
    return 0 if value == "auto" else value


BatchSize = Annotated[Whole, BeforeValidator(_auto, json_schema_input_type=Whole | Literal["auto"])]
"""A number of samples; `auto` is 0."""


class TaskSettings(Config):
    """What the inputs and answers of a task mean. These settings are saved with the model."""

    kind: str = ""
    """Entry of the catalogue of tasks; the task's own name if absent."""
    classes: dict[str, str] = {}
    """Naming tasks and prompts: label in the data → its name as text, which the model encodes or
    expects at [MASK]. A list if both are the same. If empty, the labels of the training data."""
    decoder: bool = False
    """Classes, numbers and answers of texts: the decoder reads the text again, one position later,
    and the target reads the decoder's output. Classification pools its last token by default (BART
    section 3.1)."""
    answers: list[str] = []
    """Questions about pictures and clips: the answers to choose from, by their probability. If
    empty, an answer is written. A sample's own `candidates` come before these."""
    negatives: Positive = 1
    """Matching of pictures and texts: a text that does not match is drawn from the same split. Of
    so many texts that are drawn, it is the one that is most similar to the right one. More than 1
    make a harder task, in training and in evaluation."""
    choices: Positive | None = None
    """Largest number of choices of a sample; that of the task's entry if absent (multiple choice 4,
    idiom cloze 10)."""
    template: str = ""
    """What the model reads of a row. Prompts: `{text} [MASK]`, where [MASK] is the place of the
    class's word. Tasks of a model that writes text: names of fields in braces, with `{label}`,
    `{candidate}`, `{choice}` or `{answer}` at the place of the answer. The name of a .yaml or .json
    file with the keys `template`, `prompting` and `classes` stands for what is in it. If absent,
    that of the task's kind."""
    prompting: PromptingConfig = PromptingConfig()
    """Tasks of a model that writes text: what stands around the template, and how candidates are
    compared."""
    stride: Positive = 128
    """Reading comprehension: a text that is too long is read in windows that begin this many tokens
    apart."""

    @model_validator(mode="before")
    @classmethod
    def _template_of_file(cls, data: Any) -> Any:
        return read_template(data) if isinstance(data, Mapping) else data

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
    """Name in `model.targets`; the default of the catalogue if absent."""
    data: DataConfig
    """Where the samples come from."""
    weight: PositiveFloat = 1.0
    """How often a step trains the task, relative to the other tasks (SkillNet: 2/4/2/1/4)."""
    curriculum: dict[Annotated[float, Field(ge=0, le=1)], PositiveFloat] = {}
    """The weight over the run, in place of `weight`: share of the steps that are done → weight,
    such as `{0: 8, 0.5: 1}`. Between two points it changes evenly; before the first and after the
    last it is constant."""
    batch_size: BatchSize = 32
    """Samples per micro-batch and process. `auto` (or 0): the most whose step fits into 80 % of
    the free memory of a GPU, or half of that of a CPU, with the longest samples, at most 4,096; the
    run stores the number that it found."""
    batch_tokens: Positive | None = None
    """Positions per micro-batch and process, in place of `batch_size`, which then holds for
    evaluation alone. A batch has so many samples that their positions sum up to almost this number:
    few long ones or many short ones. Lengths are estimated from the characters of texts and the
    size of recordings, so single batches may have a little more."""
    chunk_size: Positive | None = None
    """Contrastive learning: the encoder runs on this many samples at a time, and again in the
    backward pass, so that `batch_size` may be larger than what fits in memory (GradCache, arXiv
    2101.06983). The loss and its gradient are those of the whole batch. If absent, it runs on the
    whole batch."""
    batch_by: str | None = None
    """Column, such as an album. Samples with equal values come in the same training batch, so that
    the model learns what distinguishes them."""
    augment: AugmentConfig = AugmentConfig()
    """Changes to training samples."""
    masking: MaskingConfig = MaskingConfig()
    """What pretraining tasks mask, drawn anew each epoch."""
    pack: Positive | None = None
    """Tasks that predict the tokens of one text: short training samples share rows of this many
    positions, without seeing each other. Each sample of a batch, the longest first, gets the first
    row that has room for it. If absent, each sample has a row of its own."""
    metrics: list[str] = []
    """Further metrics. For classes: `f1`, `macro_f1` and `matthews`; `f1` is that of the last
    class, such as 1 of 0 and 1 (GLUE). For transcripts and other texts: `wer`, the word error rate,
    for languages with spaces between words; `normalized_cer`, `normalized_wer` and `english_wer`
    compare what Whisper's normalisers leave of both texts. Metrics of other packages have names of
    their own."""
    pool: Positive | None = None
    """Retrieval: number of candidates in the evaluation; the whole split if absent."""

    @property
    def weights(self) -> Mapping[float, float]:
        """The weight over the run: share of the steps that are done → weight."""
        return self.curriculum or {0.0: self.weight}

    @property
    def settings(self) -> TaskSettings:
        """The settings that are saved with the model."""
        return TaskSettings(**{name: getattr(self, name) for name in TaskSettings.model_fields})

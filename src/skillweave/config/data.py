"""Where samples come from, and what is done to them on their way to the model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    field_validator,
    model_validator,
)

from skillweave.config.base import Config, Positive, Share

Split = Literal["train", "validation", "test"]


class DataConfig(Config):
    """Where a task's samples come from."""

    path: str | dict[Split, str]
    """One source that is split here, or one per split: `pack:emoji`, `installed:reviews`, a .jsonl,
    .csv or .parquet file, a folder of files with captions, `hf:NAME` for a Hugging Face dataset, or
    .tar shards (WebDataset)."""
    columns: dict[str, str | list[str]] = {}
    """Field of the task → column of the source; several columns for captions, the first of which
    evaluation uses."""
    group: str | None = None
    """The column whose values never stand in two splits, also where the source has a split of its
    own; when absent, the source's `split` column counts, or else its `group` column, or else each
    sample alone."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test when the source has no `split` column."""
    limit: Positive | None = None
    """Use at most so many samples of each split."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Train on this share of the training samples, drawn by hash: a smaller share lies within a
    larger one, and each label keeps its share. On the command line `--fraction` sets it for all
    tasks."""

    fold: tuple[NonNegativeInt, Positive] | None = None
    """`[i, k]`: training and validation samples are parted into k, of which part i validates and
    the others train; `skillweave train RECIPE --folds k` sets it, for each i in turn."""

    @field_validator("columns", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return value or {}

    @model_validator(mode="after")
    def _shares(self) -> DataConfig:
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions {self.fractions} must be at least 0 and sum to 1")
        if self.fold and (self.fold[0] >= self.fold[1] or isinstance(self.path, dict)):
            raise ValueError(f"fold {list(self.fold)} needs one path for all splits, and i below k")
        return self


class LimitsConfig(Config):
    """What counts as broken or hostile media (such samples are skipped, counted and listed), and
    what decoded media may take."""

    max_bytes: Positive = 256 * 2**20
    """Largest file."""
    max_pixels: Positive = 64_000_000
    """Most pixels of a picture or a frame."""
    max_seconds: PositiveFloat = 3600
    """Longest recording or clip that is opened."""
    min_seconds: NonNegativeFloat = 0.0
    """Shorter recordings are skipped."""
    too_long: Literal["cut", "skip"] = "cut"
    """What happens to sound and video that exceed the stream's own length."""
    kept_bytes: NonNegativeInt = 128 * 2**20
    """Memory for decoded training media, which later epochs need not decode again; of each task,
    and of each worker."""


class AugmentConfig(Config):
    """Changes to training samples, drawn anew each epoch; evaluation never uses them."""

    shift: Share = 0.0
    """Pictures and clips: largest shift, as a share of the side."""
    scale: Share = 0.0
    """Pictures and clips: largest change of size, as a share."""
    colour: Share = 0.0
    """Pictures and clips: largest change of brightness, contrast and saturation, as a share."""
    speed: Share = 0.0
    """Sound: largest change of tempo and pitch, as a share."""
    noise: NonNegativeFloat = 0.0
    """Sound: largest standard deviation of added noise, relative to the recording's own."""
    time_mask: Share = 0.0
    """Sound: twice, a stretch of at most this share of the recording is silenced (SpecAugment)."""
    frequency_mask: Share = 0.0
    """Sound: twice, a band of at most this share of the mel scale is taken out (SpecAugment)."""
    join: Positive = 1
    """Up to so many recordings with their transcripts, or of a sample's captions, joined into
    one."""
    word_dropout: Share = 0.0
    """Text and code inputs: share of wordpieces replaced by [MASK]."""


MASKED_SHARES = {"masked_pixels": 0.6, "masked_autoencoder": 0.75, "masked_image_token": 0.4}
"""Kind of target → the share of a picture's patches that is hidden (SimMIM, MAE and BEiT, in their
papers' settings)."""
CLIP_SHARE = 0.9
"""Share of a clip's tubelets that is hidden, the same places in all its frames (VideoMAE section
3.2)."""
WORD_SHARE = 0.15
"""Share of words to predict (SkillNet section 4.2, BERT)."""


class MaskingConfig(Config):
    """What pretraining on masked text and masked pictures hides."""

    unit: Literal["piece", "word", "chinese_word", "span"] = "piece"
    """`piece`: wordpieces (BERT). `word`: all pieces of a word (whole-word masking); each Chinese
    character is a word. `chinese_word`: the same, with Chinese words found by a segmenter. `span`:
    neighbouring words (SpanBERT)."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Share of pieces or patches that is to be predicted; absent, 0.15 of words, of patches 0.6 by
    `masked_pixels` (SimMIM), 0.75 by `masked_autoencoder` (MAE) and 0.4 by `masked_image_token`
    (BEiT), and 0.9 of tubelets (VideoMAE)."""
    block: Positive = 1
    """Pictures and clips: side of the squares of patches that are hidden together (SimMIM's 32
    pixels are 2 patches of 16)."""
    pairs: Literal["order", "next"] = "order"
    """Sentence pairs, of half the samples: `order` swaps the two (ALBERT), `next` takes the second
    from another text (BERT)."""

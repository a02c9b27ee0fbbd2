"""Settings of data: where samples come from, and what happens to them before the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    field_validator,
    model_validator,
)

from skillweave.config.base import Config, Positive, Share, Whole

Split = Literal["train", "validation", "test"]


def compile_path_pattern(pattern: str) -> re.Pattern[str]:
    """A `pattern` of `DataConfig` as a regular expression with a group for each name. Raises
    ValueError for one without a name, and for a name that is given twice."""
    regex = ""
    for part in re.split(r"(\{\w+\}|\*\*/?|\*)", pattern):
        if part.startswith("{"):
            regex += f"(?P<{part[1:-1]}>[^/]+?)"
        else:
            wild = {"*": "[^/]*", "**": ".*", "**/": "(?:.*/)?"}
            regex += wild.get(part, re.escape(part))
    try:
        compiled = re.compile(regex)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r}: {error}") from None
    if not compiled.groups or "key" in compiled.groupindex:
        raise ValueError(
            f"pattern {pattern!r} must name columns in braces, other than key, such as"
            " {label}/{speaker}/*"
        )
    return compiled


class DataConfig(Config):
    """Where a task's samples come from."""

    describes: ClassVar[Mapping[str, str]] = {"fingerprint": "path"}

    path: str | dict[Split, str]
    """One source that is split here, or one per split: `pack:emoji`, `installed:reviews`, a .jsonl,
    .csv or .parquet file, a folder of files with captions, `hf:NAME` for a Hugging Face dataset, or
    .tar shards (WebDataset)."""
    fingerprint: str | dict[Split, str] | None = None
    """The number of rows and a hash of the contents, as a run stores them. Training and evaluation
    stop when the data have other contents by then."""
    columns: dict[str, str | list[str]] = {}
    """Field of the task → column of the source, or several columns for captions. Evaluation uses
    the first of several."""
    encoding: str | None = None
    """Encoding of text files and tables of text, as Python names it, such as `gb18030` (GBK),
    `big5`, `shift_jis` or `cp1252`. If absent, UTF-8; files in GB 18030, and in UTF-16 with a byte
    order mark, are detected, with a message."""
    pattern: str | None = None
    """Columns from the paths of the files in a folder, without their extension, such as
    `{label}/{speaker}/*`. A name in braces matches a part of a path up to the next `/`, and so does
    `*`; `**` matches across folders. Files of another form are skipped and listed."""
    group: str | None = None
    """A column whose equal values are always in the same split, also where the source has splits of
    its own. If absent, the source's `split` column decides, else its `group` column, else each
    sample is a group of its own."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test when the source has no `split` column."""
    validation_share: Share = 0.0
    """Where the source has training samples of its own and none for validation, such as paths for
    train and test alone: this share of the training samples validates, in whole groups."""
    limit: Positive | None = None
    """Use at most this many samples of each split."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Train on this share of the training samples, drawn by hash. A smaller share is part of a
    larger one, and each label keeps its share. `--fraction` on the command line sets it for all
    tasks."""

    shuffle_window: Positive | None = None
    """Training reads the source by shards or row groups, in random order, and shuffles so many rows
    at a time. Nothing then grows with the number of rows: for sources that are too large to index,
    and for those in object stores. It needs a path for each split, and labels and tokenizers come
    from the first 10,000 rows. Other sources are read in any order."""

    fold: tuple[Whole, Positive] | None = None
    """`[i, k]`: training and validation samples are divided into k folds; fold i validates and the
    others train. `skillweave train RECIPE --folds k` sets it for each i in turn."""

    @field_validator("columns", mode="before")
    @classmethod
    def _accept_none(cls, value: Any) -> Any:
        return value or {}

    @field_validator("path", mode="before")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value is None or value == "" or value == {}:
            raise ValueError(
                "name where the samples come from, such as data.csv, or {train: a.csv, test: b.csv}"
            )
        return value

    @field_validator("fractions", mode="before")
    @classmethod
    def _three(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 3:
            raise ValueError(
                "three shares, of train, validation and test, such as [0.8, 0.1, 0.1]; 0 for none"
            )
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            "".encode(value or "utf-8")
        except LookupError as error:
            raise ValueError(f"{error}; name one that Python knows, such as gb18030") from None
        return value

    @field_validator("pattern")
    @classmethod
    def _valid_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            compile_path_pattern(value)
        return value

    @model_validator(mode="after")
    def _streams_a_path(self) -> DataConfig:
        if self.shuffle_window is None:
            return self
        if not isinstance(self.path, dict) or "train" not in self.path:
            raise ValueError(
                "shuffle_window: a source that is read by shards is not split; give a path for each"
                " split, such as path: {train: shards/*.parquet, validation: val.parquet}"
            )
        unable = {
            "group": self.group is not None,
            "validation_share": self.validation_share > 0,
            "limit": self.limit is not None,
            "fraction": self.fraction < 1,
        }
        if names := [name for name, given in unable.items() if given]:
            raise ValueError(
                f"shuffle_window: {' and '.join(names)} would need an index of all rows; leave"
                " shuffle_window out, or take fewer shards"
            )
        return self

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions {self.fractions} must be at least 0 and sum to 1")
        if self.validation_share and isinstance(self.path, dict) and "validation" in self.path:
            raise ValueError("validation_share: the path has validation samples; leave one out")
        if self.fold and (self.fold[0] >= self.fold[1] or isinstance(self.path, dict)):
            raise ValueError(f"fold {list(self.fold)} needs one path for all splits, and i below k")
        return self


class LimitsConfig(Config):
    """Limits of media files, and of the memory for decoded media. A sample outside the limits is
    skipped, counted and listed."""

    max_bytes: Positive = 256 * 2**20
    """Largest file."""
    max_pixels: Positive = 64_000_000
    """Most pixels of an image or a frame. An AVIF may have half as many and a WebP a third, since
    their decoders take more memory."""
    max_seconds: PositiveFloat = 3600
    """Longest recording or video that is opened."""
    min_seconds: NonNegativeFloat = 0.0
    """Shorter recordings are skipped."""
    too_long: Literal["cut", "skip"] = "cut"
    """What happens to sound and video that is longer than the stream's own length."""
    isolate: bool = False
    """Whether images, sound and video are decoded in a child process, so that a file that hangs or
    crashes a decoder costs one sample: for files of strangers. Each process, also each data worker,
    has one child."""
    isolate_seconds: PositiveFloat = 10.0
    """`isolate`: longest time that a file may take to decode."""
    isolate_bytes: Positive = 2**30
    """`isolate`: most memory that decoding may take."""
    media_cache_bytes: Whole = 128 * 2**20
    """Memory for decoded training media, which later epochs need not decode again. Each task and
    each worker has its own."""


class AugmentConfig(Config):
    """Random changes to training samples, drawn again in each epoch. Evaluation never uses them."""

    shift: Share = 0.0
    """Image and video: largest shift, as a share of the side."""
    scale: Share = 0.0
    """Image and video: largest change of size, as a share."""
    colour: Share = 0.0
    """Image and video: largest change of brightness, contrast and saturation, as a share."""
    speed: Share = 0.0
    """Sound: largest change of tempo and pitch, as a share."""
    noise: NonNegativeFloat = 0.0
    """Sound: largest standard deviation of added noise, relative to the recording's own."""
    reverberation: float = Field(default=0.0, ge=0, le=10)
    """Sound: longest reverberation time in seconds, in which the echoes of a room decay by 60 dB. A
    living room has about 0.5."""
    time_mask: Share = 0.0
    """Sound: two stretches of at most this share of the recording are silenced (SpecAugment)."""
    frequency_mask: Share = 0.0
    """Sound: two bands of at most this share of the mel scale are removed (SpecAugment)."""
    join: Positive = 1
    """Up to this many recordings with their transcripts, or captions of a sample, are joined into
    one."""
    word_dropout: Share = 0.0
    """Text and code inputs: share of tokens replaced by [MASK]."""


class MaskingConfig(Config):
    """What pretraining on masked and corrupted texts and on masked images masks."""

    unit: Literal["token", "word", "chinese_word", "span"] = "token"
    """`token`: single tokens (BERT). `word`: all tokens of a word (whole-word masking); each
    Chinese character is a word. `chinese_word`: the same, with Chinese words found by a segmenter.
    `span`: neighbouring words (SpanBERT)."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Share of tokens or patches to predict. If absent, 0.15 of tokens, 0.3 by `text_infilling`
    (BART) and of sentences by `gap_sentences` (Pegasus); of patches 0.6 by `masked_pixels`
    (SimMIM), 0.75 by `masked_autoencoder` (MAE) and 0.4 by `masked_image_token` (BEiT); and 0.9 of
    tubelets (VideoMAE)."""
    span_length: Literal["poisson", "geometric", "fixed"] | None = None
    """Text denoising and infilling: distribution of the number of tokens that one [MASK] replaces.
    `poisson`: as in BART; a span of length 0 inserts a [MASK]. `geometric`: as in SpanBERT, at
    least 1. `fixed`: always the mean. If absent, `poisson` by `text_infilling` and otherwise
    `geometric`, as M6 does not say which."""
    mean_span_length: float | None = Field(default=None, ge=1)
    """Text denoising, text infilling and span corruption: mean number of tokens in a span. If
    absent, 3 (BART, T5)."""
    permute_sentences: bool | None = None
    """Text denoising and infilling: whether the sentences of the masked text are put in another
    order (BART). If absent, by `text_infilling` alone."""
    block: Positive = 1
    """Image and video: side of the squares of patches that are masked together (SimMIM's 32 pixels
    are 2 patches of 16)."""
    pairs: Literal["order", "next"] = "order"
    """Sentence pairs, in half of the samples: `order` swaps the two (ALBERT), `next` takes the
    second from another text (BERT)."""

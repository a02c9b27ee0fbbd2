"""What is done to samples on their way to the model: limits, augmentation, masking."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from skillweave.config.base import Config, Positive, Share


class LimitsConfig(Config):
    """What counts as broken or hostile media (such samples are skipped, counted and listed), and what decoded media may take."""

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
    """Memory for decoded training media, which later epochs need not decode again; of each task, and of each worker."""


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
    """Up to so many recordings with their transcripts, or of a sample's captions, joined into one."""
    word_dropout: Share = 0.0
    """Text and code inputs: share of wordpieces replaced by [MASK]."""


MASKED_SHARES = {"masked_pixels": 0.6, "masked_autoencoder": 0.75, "masked_image_token": 0.4}
"""Kind of target → the share of a picture's patches that is hidden (SimMIM, MAE and BEiT, in their papers' settings)."""
CLIP_SHARE = 0.9
"""Share of a clip's tubelets that is hidden, the same places in all its frames (VideoMAE section 3.2)."""
WORD_SHARE = 0.15
"""Share of words to predict (SkillNet section 4.2, BERT)."""


class MaskingConfig(Config):
    """What pretraining on masked text and masked pictures hides."""

    unit: Literal["piece", "word", "chinese_word", "span"] = "piece"
    """`piece`: wordpieces (BERT). `word`: all pieces of a word (whole-word masking); each Chinese character is a word.
    `chinese_word`: the same, with Chinese words found by a segmenter. `span`: neighbouring words (SpanBERT)."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Share of pieces or patches that is to be predicted; absent, 0.15 of words, of patches 0.6 by `masked_pixels` (SimMIM), 0.75
    by `masked_autoencoder` (MAE) and 0.4 by `masked_image_token` (BEiT), and 0.9 of tubelets (VideoMAE)."""
    block: Positive = 1
    """Pictures and clips: side of the squares of patches that are hidden together (SimMIM's 32 pixels are 2 patches of 16)."""
    pairs: Literal["order", "next"] = "order"
    """Sentence pairs, of half the samples: `order` swaps the two (ALBERT), `next` takes the second from another text (BERT)."""

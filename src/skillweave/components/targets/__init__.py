"""Targets by kind; the losses of a task's targets add up (TencentPretrain section 3.1).

A target is one file. It is registered where its configuration class is defined.
"""

from skillweave.components.targets import (  # noqa: F401
    answer_span,
    answers,
    bidirectional_language,
    choice,
    classification,
    contrastive,
    cosine,
    ctc,
    language,
    masked_autoencoder,
    masked_image_token,
    masked_language,
    masked_pixels,
    masked_unit,
    matching,
    multi_label,
    pooled,
    prompt,
    regression,
    replaced,
    similarity,
    token_labels,
)
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    Target,
    TargetConfig,
    TargetOutput,
)

__all__ = ["TARGETS", "Encoded", "Target", "TargetConfig", "TargetOutput"]

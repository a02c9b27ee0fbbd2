"""Targets: what a model learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from skillweave.batch import Modality
from skillweave.config.base import Config, Positive

UNITS_ASSET = "sound_units.safetensors"
"""The name of the cluster model among a model's assets."""
Pooling = Literal["first", "mean"]


class ClassificationTarget(Config):
    """Cross-entropy over classes."""

    kind: Literal["classification"] = "classification"
    classes: list[str] = []
    """Label names in order; taken from the training data when empty."""
    hidden: bool = True
    """BERT's pooler (a dense layer and tanh) before the classifier."""
    pooling: Pooling = "first"
    """Which vector stands for a sample: that of its first token, or the mean of all its tokens."""


class MultiLabelTarget(Config):
    """Any number of classes a sample: binary cross-entropy for each."""

    kind: Literal["multi_label"] = "multi_label"
    classes: list[str] = []
    """Label names in order; taken from the training data when empty."""
    hidden: bool = True
    """BERT's pooler (a dense layer and tanh) before the classifier."""
    pooling: Pooling = "first"
    """Which vector stands for a sample: that of its first token, or the mean of all its tokens."""


class RegressionTarget(Config):
    """A number a sample: mean squared error."""

    kind: Literal["regression"] = "regression"
    mean: float | None = None
    """Subtracted from the numbers before they are learned; that of the training data when absent."""
    deviation: PositiveFloat | None = None
    """The numbers are divided by it; that of the training data when absent."""
    hidden: bool = True
    """BERT's pooler (a dense layer and tanh) before the last layer."""
    pooling: Pooling = "first"
    """Which vector stands for a sample: that of its first token, or the mean of all its tokens."""


class TokenLabelsTarget(Config):
    """A label for each word: cross-entropy at its first piece (BERT section 5.3)."""

    kind: Literal["token_labels"] = "token_labels"
    classes: list[str] = []
    """Label names in order, such as O, B-PER, I-PER; taken from the training data when empty."""


class SpanTarget(Config):
    """Where an answer begins and ends in a text: cross-entropy over its positions (BERT section 4.2)."""

    kind: Literal["span"] = "span"
    most_pieces: Positive = 30
    """The longest answer that is given, in pieces."""


class ChoiceTarget(Config):
    """Which of several passes is right: a score each, cross-entropy over them (BERT section 4.4)."""

    kind: Literal["choice"] = "choice"
    hidden: bool = True
    """BERT's pooler (a dense layer and tanh) before the score."""
    pooling: Pooling = "first"
    """Which vector stands for a pass: that of its first token, or the mean of all its tokens."""


class CosineTarget(Config):
    """How alike two texts are: mean squared error of the cosine of their vectors (SBERT section 3)."""

    kind: Literal["cosine"] = "cosine"
    least: float | None = None
    """The number that means nothing in common, cosine 0; the least of the training data when absent."""
    most: float | None = None
    """The number that means the same, cosine 1; the largest of the training data when absent."""
    pooling: Pooling = "mean"
    """Which vector stands for a text: that of its first token, or the mean of all its tokens."""


class PromptTarget(Config):
    """Classes as words at [MASK] (PET): the head is that of masked language modelling, and takes its weights by its name."""

    kind: Literal["prompt"] = "prompt"
    words: list[list[int]] = []
    """The pieces of each class's word; filled in from the task's `classes`."""
    modality: Modality = Modality.TEXT
    """Whose word embedding the output layer is tied to."""


class ContrastiveTarget(Config):
    """In-batch contrastive loss between two passes, symmetric (SkillNet section 4.1, CLIP)."""

    kind: Literal["contrastive"] = "contrastive"
    temperature: PositiveFloat = 0.07
    """Where the learned temperature starts."""
    max_scale: PositiveFloat = 100.0
    """The most that cosines may be multiplied by (1 / temperature)."""
    pooling: Pooling = "first"
    """Which vector stands for a sample: that of its first token (the paper), or the mean of all (learns faster from nothing)."""


class SimilarityTarget(Config):
    """The answer is the candidate of largest similarity; candidates are encoded by the same model (Uni-Perceiver section 3.1).

    One such target serves all tasks of a model, retrieval too: its scale is the only parameter beside the encoder's.
    """

    kind: Literal["similarity"] = "similarity"
    temperature: PositiveFloat = 0.07
    """Where the learned temperature starts."""
    max_scale: PositiveFloat = 100.0
    """The most that cosines may be multiplied by (1 / temperature)."""
    pooling: Pooling = "first"
    """Which vector stands for a candidate, and for an input as a whole: that of its first token, or the mean of all of them."""
    negatives: Positive = 256
    """Class names or wordpieces drawn as candidates for each training batch, beside those that are its answers."""
    corrections: dict[str, Positive] = {}
    """Task → its number of classes, for which a linear layer corrects the similarities; filled in by prompt tuning."""


class CTCTarget(Config):
    """Connectionist temporal classification over characters (SkillNet section 4.1)."""

    kind: Literal["ctc"] = "ctc"
    characters: list[str] = []
    """The alphabet without the blank; taken from the training transcripts when empty."""


class MaskedLanguageTarget(Config):
    """Masked language modelling, logits only where masked, output tied to the word embedding (BERT)."""

    kind: Literal["mlm"] = "mlm"
    modality: Modality = Modality.TEXT
    """Whose word embedding the output layer is tied to, and whose words are predicted."""


class MaskedUnitTarget(Config):
    """The cluster of each masked frame (SkillNet section 4.2, HuBERT)."""

    kind: Literal["masked_unit"] = "masked_unit"
    clusters: Positive = 100
    """k of the k-means on MFCC."""


Target = Annotated[
    ClassificationTarget
    | MultiLabelTarget
    | RegressionTarget
    | TokenLabelsTarget
    | SpanTarget
    | ChoiceTarget
    | CosineTarget
    | PromptTarget
    | ContrastiveTarget
    | SimilarityTarget
    | CTCTarget
    | MaskedLanguageTarget
    | MaskedUnitTarget,
    Field(discriminator="kind"),
]

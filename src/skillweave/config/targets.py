"""Targets: what a model learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from skillweave.batch import Modality
from skillweave.config.base import Config, Positive, Share
from skillweave.config.encoder import Activation, EncoderConfig

UNITS_ASSET = "sound_units.safetensors"
PATCHES_ASSET = "visual_tokens.safetensors"
"""The name of the cluster model among a model's assets."""
TRANSCRIPTS_ASSET = "transcripts.txt"
"""The name of what a language model of transcripts learns from among a model's assets: a text a
line."""
Pooling = Literal["first", "mean", "max", "last", "rest"]
"""The first token, the mean of all, the largest of each number, the last token, or the mean of all
but the first."""
Compared = Literal["first", "second", "difference", "product"]


class ClassificationTarget(Config):
    """Cross-entropy over classes."""

    kind: Literal["classification"] = "classification"
    classes: list[str] = []
    """Label names in order; taken from the training data when empty."""
    hidden: bool = True
    """BERT's pooler (a dense layer and a nonlinearity) before the classifier."""
    hidden_size: Positive | None = None
    """Width of the pooler's dense layer (wav2vec 2.0: 256); absent, the model's."""
    activation: Literal["tanh", "relu", "gelu", "none"] = "tanh"
    """The pooler's nonlinearity (BERT: tanh, DistilBERT: relu, ELECTRA: gelu, wav2vec 2.0:
    none)."""
    bias: bool = True
    """Whether the classifier adds a bias (GPT-2, LLaMA: none)."""
    distilled: bool = False
    """Whether a second classifier at the second token learns from a teacher, and the answer is the
    mean of both (DeiT)."""
    pooling: Pooling = "first"
    """Which vector stands for a sample: that of its first or last token, the mean or largest of
    all, or the mean of all but the first (`rest`)."""
    norm_epsilon: PositiveFloat | None = None
    """Layer normalisation of that vector, with this added to the variance (BEiT, VideoMAE); absent,
    none."""
    compared: list[Compared] = []
    """A task of two passes: what the classifier sees of their vectors u and v: u, v, |u - v| and u
    · v, number by number, side by side. InferSent (arXiv 1705.02364) has all four, SBERT (arXiv
    1908.10084) the first three. Empty: the last pass alone (of a decoder, if there is one)."""


class PooledTarget(Config):
    """A sample's vector, for use as a feature; it has no loss."""

    kind: Literal["pooled"] = "pooled"
    hidden: bool = True
    """Whether it goes through BERT's pooler, a dense layer and tanh."""
    pooling: Pooling = "first"
    """Which vector stands for a sample: that of its first or last token, the mean of all, or of all
    but the first (`rest`)."""
    norm_epsilon: PositiveFloat | None = None
    """Layer normalisation of that vector, with this added to the variance (BEiT); absent, none."""
    projection: Positive | None = None
    """Size of a space to which a linear layer takes it at last (CLIP's text or image model alone);
    absent, none."""


class MultiLabelTarget(Config):
    """Any number of classes a sample: binary cross-entropy for each."""

    kind: Literal["multi_label"] = "multi_label"
    classes: list[str] = []
    """Label names in order; taken from the training data when empty."""
    hidden: bool = True
    """BERT's pooler (a dense layer and tanh) before the classifier."""
    inner: Positive | None = None
    """Width of a layer with its own norm and GELU before the last one (ViLT: twice the model's);
    absent, none."""
    pooling: Pooling = "first"
    """Which vector stands for a sample: that of its first token, or the mean of all its tokens."""


class RegressionTarget(Config):
    """A number a sample: mean squared error."""

    kind: Literal["regression"] = "regression"
    mean: float | None = None
    """Subtracted from the numbers before they are learned; that of the training data when
    absent."""
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
    """Where an answer begins and ends in a text: cross-entropy over its positions (BERT section
    4.2)."""

    kind: Literal["span"] = "span"
    most_pieces: Positive = 30
    """The longest answer that is given, in pieces."""


class ChoiceTarget(Config):
    """Which of several passes is right: a score each, cross-entropy over them (BERT section
    4.4)."""

    kind: Literal["choice"] = "choice"
    hidden: bool = True
    """BERT's pooler (a dense layer and tanh) before the score."""
    pooling: Pooling = "first"
    """Which vector stands for a pass: that of its first token, or the mean of all its tokens."""


class CosineTarget(Config):
    """How alike two texts are: mean squared error of the cosine of their vectors (SBERT section
    3)."""

    kind: Literal["cosine"] = "cosine"
    least: float | None = None
    """The number that means nothing in common, cosine 0; the least of the training data when
    absent."""
    most: float | None = None
    """The number that means the same, cosine 1; the largest of the training data when absent."""
    pooling: Pooling = "mean"
    """Which vector stands for a text: that of its first token, or the mean of all its tokens."""


class PromptTarget(Config):
    """Classes as words at [MASK] (PET): the head is that of masked language modelling, and takes
    its weights by its name."""

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
    pooling: Pooling | dict[Modality, Pooling] = "first"
    """Which vector stands for a sample: that of its first token (the paper), of its last, or the
    mean of all (learns faster from nothing). One for all passes, or one for each modality."""
    projection: Positive | None = None
    """Size of the space in which vectors are compared; each stream has a linear layer to it (CLIP).
    Absent: the model's width."""


class SimilarityTarget(Config):
    """The answer is the candidate of largest similarity; candidates are encoded by the same model
    (Uni-Perceiver section 3.1).

    One such target serves all tasks of a model, retrieval too: its scale is the only parameter
    beside the encoder's.
    """

    kind: Literal["similarity"] = "similarity"
    temperature: PositiveFloat = 0.07
    """Where the learned temperature starts."""
    max_scale: PositiveFloat = 100.0
    """The most that cosines may be multiplied by (1 / temperature)."""
    pooling: Pooling = "first"
    """Which vector stands for a candidate, and for an input as a whole: that of its first token, or
    the mean of all of them."""
    negatives: Positive = 256
    """Class names or wordpieces drawn as candidates for each training batch, beside those that are
    its answers."""
    corrections: dict[str, Positive] = {}
    """Task → its number of classes, for which a linear layer corrects the similarities; filled in
    by prompt tuning."""


class CTCTarget(Config):
    """Connectionist temporal classification over characters (SkillNet section 4.1)."""

    kind: Literal["ctc"] = "ctc"
    characters: list[str] = []
    """The alphabet without the blank; taken from the training transcripts when empty."""
    beams: Positive = 1
    """Prediction: how many beginnings of a transcript are followed at once; 1 takes the likeliest
    class of each frame."""
    language: NonNegativeInt = 0
    """Prediction: the length, in characters, of the n-grams of a language model of the training
    transcripts; 0 for none."""
    language_text: str | None = None
    """A text file, a sentence a line, from which the language model learns beside the
    transcripts."""
    language_weight: NonNegativeFloat = 0.5
    """What the language model's log-probability is multiplied by."""
    length_bonus: float = 0.5
    """With a language model: added to a transcript's log-probability for each character."""


class MaskedLanguageTarget(Config):
    """Masked language modelling, logits only where masked, output tied to the word embedding
    (BERT)."""

    kind: Literal["mlm"] = "mlm"
    modality: Modality = Modality.TEXT
    """Whose word embedding the output layer is tied to, and whose words are predicted."""
    activation: Activation = "gelu"
    """The nonlinearity of the layer before the output."""


class LanguageTarget(Config):
    """Language modelling: each position predicts the word that follows it (GPT-2; with a decoder,
    T5)."""

    kind: Literal["lm"] = "lm"
    modality: Modality = Modality.TEXT
    """Whose words are predicted."""
    tied: bool = True
    """Whether the output layer is the word embedding; of a decoder, the target's."""
    bias: bool = False
    """Whether the output layer adds a bias (BART)."""
    scaled: bool = False
    """Vectors divided by √width before the output layer (T5)."""
    label_smoothing: Share = 0.0
    """Training: share of the answer's probability that is spread over all words (Transformer, arXiv
    1706.03762 section 5.4)."""
    beams: Positive = 1
    """Writing: how many beginnings of an answer are followed at once; 1 takes the likeliest word
    each time."""
    length_penalty: NonNegativeFloat = 1.0
    """Writing, with beams: an answer's log-probability is divided by its length to this power;
    larger favours longer ones."""
    begin: list[str] = []
    """Tokens of a decoder's vocabulary that every answer begins with behind [CLS], which it need
    not predict: of Whisper `<|zh|>`, `<|transcribe|>`, `<|notimestamps|>`."""
    most_pieces: Positive = 128
    """Writing: the longest answer, in pieces; nor is it longer than what the decoder can read."""


class BidirectionalLanguageTarget(Config):
    """Each position predicts the words on both sides, each from one half of its vector (ELMo); the
    encoder reads them `apart`."""

    kind: Literal["bilm"] = "bilm"
    modality: Modality = Modality.TEXT
    """Whose words are predicted."""
    bias: bool = False
    """Whether the output layer, which both directions share, adds a bias."""


class ReplacedTarget(Config):
    """Replaced-token detection: whether each word was put in by a generator (ELECTRA, arXiv
    2003.10555)."""

    kind: Literal["replaced"] = "replaced"


class MaskedUnitTarget(Config):
    """The cluster of each masked frame (SkillNet section 4.2, HuBERT)."""

    kind: Literal["masked_unit"] = "masked_unit"
    clusters: Positive = 100
    """k of the k-means on MFCC."""


class MaskedImageTokenTarget(Config):
    """The visual token of each masked patch (BEiT, arXiv 2106.08254 section 2.4)."""

    kind: Literal["masked_image_token"] = "masked_image_token"
    vocabulary: Positive = 8192
    """Visual tokens that there are; in the paper those of DALL-E's tokeniser. The task
    `masked_image_tokens` takes the centres of k-means on the patches of training pictures in their
    place."""


class MaskedPixelsTarget(Config):
    """The pixels of masked patches, by a linear layer (SimMIM, arXiv 2111.09886)."""

    kind: Literal["masked_pixels"] = "masked_pixels"


class MaskedAutoencoderTarget(Config):
    """The pixels of patches that the encoder has not seen, by a decoder of its own (MAE, arXiv
    2111.06377; of clips VideoMAE, arXiv 2203.12602). The decoder's positions are learned, or
    computed where the stream's are."""

    kind: Literal["masked_autoencoder"] = "masked_autoencoder"
    stream: Literal[Modality.IMAGE, Modality.VIDEO] = Modality.IMAGE
    """Whose patches are hidden: a picture's, or a clip's (`video`)."""
    width: Positive = 512
    """Size of the decoder's vectors."""
    decoder: EncoderConfig = EncoderConfig(
        layers=8, heads=16, feed_forward=2048, norm_position="pre", dropout=0.0
    )
    """The decoder's blocks, which see all patches."""
    norm_epsilon: PositiveFloat | None = None
    """Layer normalisation behind the decoder with this added to the variance, where the decoder's
    own blocks have none at their end (`last_norm: false`; VideoMAE); absent, none."""
    bias: bool = True
    """Whether the layer from the encoder to the decoder adds a bias (VideoMAE: none)."""
    normalised: bool = False
    """Whether each patch's pixels are brought to mean 0 and variance 1 before they are compared
    (MAE table 1d); of a clip each colour's by themselves (VideoMAE)."""


Target = Annotated[
    ClassificationTarget
    | MultiLabelTarget
    | RegressionTarget
    | TokenLabelsTarget
    | SpanTarget
    | ChoiceTarget
    | CosineTarget
    | PromptTarget
    | PooledTarget
    | ContrastiveTarget
    | SimilarityTarget
    | CTCTarget
    | MaskedLanguageTarget
    | LanguageTarget
    | BidirectionalLanguageTarget
    | ReplacedTarget
    | MaskedUnitTarget
    | MaskedImageTokenTarget
    | MaskedPixelsTarget
    | MaskedAutoencoderTarget,
    Field(discriminator="kind"),
]

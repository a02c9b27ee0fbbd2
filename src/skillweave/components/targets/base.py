"""Targets: the last component. A target turns the encoder's output into logits and a loss.

Each target is one file with two classes: a `TargetConfig`, which holds the settings, describes the
target to the rest of the package and builds it, and the `Target` module itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field, PositiveFloat
from torch import Tensor, nn

from skillweave.batch import IGNORE, Batch, Features, Modality
from skillweave.components.targets.transform import TransformConfig, build_transform
from skillweave.config.base import Config, ConfigError, Positive
from skillweave.config.registry import Registry
from skillweave.data.values import NO_CLASS, class_name, is_missing
from skillweave.layers.feed_forward import ACTIVATIONS
from skillweave.layers.precision import at_least_float32
from skillweave.layers.tokens import TokenMap

if TYPE_CHECKING:
    from skillweave.config.encoder import DecoderConfig, EncoderConfig
    from skillweave.config.streams import ImageStream, VideoStream
    from skillweave.config.task import TaskSettings

Pooling = Literal["first", "mean", "max", "last", "rest", "root_mean", "weighted_mean"]
"""The first token, the mean of all tokens, the largest value of each component, the last token, the
mean of all tokens but the first, the sum of all tokens divided by the square root of their number,
or their mean weighted by their positions (sentence-transformers)."""
Poolings = Annotated[list[Pooling], Field(min_length=1)]
"""Several, whose vectors are concatenated."""


def _require_different(names: list[str]) -> list[str]:
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        if (first := numbers.setdefault(name, number)) < number:
            raise ValueError(
                f"classes {first} and {number} have the same name {name!r}; rename one, since"
                " answers and labels are told by name"
            )
    return names


ClassNames = Annotated[list[str], AfterValidator(_require_different)]
"""Names of classes in order, each of one class."""


@dataclass(frozen=True)
class Encoded:
    """One pass after the encoder: flat tokens [T, D] and their positions.

    `keep_NL`: [N, L] the positions for which logits are wanted; None for all of them. `masked_NL`:
    [N, L] which positions of the pass's input were masked; None for a pass of several spans, and
    where nothing was masked. `registers`: number of tokens after the first that are registers.
    """

    hidden_TD: Tensor
    tokens: TokenMap
    keep_NL: Tensor | None = None
    masked_NL: Tensor | None = None
    registers: int = 0

    def first(self, span: int = 0) -> Tensor:
        """[N, D] the vector of the first token of a span in each sample, its [CLS]."""
        return self.hidden_TD.index_select(0, self.tokens.first[span])

    def second(self) -> Tensor:
        """[N, D] the vector of each sample's second token, DeiT's distillation token."""
        return self.hidden_TD.index_select(0, self.tokens.first[0] + 1)

    def padded(self) -> Tensor:
        """[N, L, D], zeros at padding."""
        return self.tokens.to_padded(self.hidden_TD)

    def mean(self) -> Tensor:
        """[N, D] the mean of each sample's tokens."""
        hidden_NLD = self.padded()
        if self.tokens.valid is not None:
            hidden_NLD = hidden_NLD * self.tokens.valid.unsqueeze(-1)
        return hidden_NLD.sum(1) / self.tokens.lengths.to(hidden_NLD.device).unsqueeze(1)

    def root_mean(self) -> Tensor:
        """[N, D] the sum of each sample's tokens, divided by the square root of their number."""
        return self.mean() * self.tokens.lengths.to(self.hidden_TD.device).unsqueeze(1).sqrt()

    def weighted_mean(self) -> Tensor:
        """[N, D] the mean of each sample's tokens, weighted by their positions from 1 on (SGPT,
        arXiv 2202.08904 section 4.1)."""
        places_L = torch.arange(1, self.tokens.length + 1, device=self.hidden_TD.device)
        weights_NL = places_L.expand(self.tokens.samples, -1).to(self.hidden_TD.dtype)
        if self.tokens.valid is not None:
            weights_NL = (self.tokens.valid.cumsum(1) * self.tokens.valid).to(self.hidden_TD.dtype)
        weights_NL = weights_NL / weights_NL.sum(1, keepdim=True)
        return (self.padded() * weights_NL.unsqueeze(2)).sum(1)

    def rest(self) -> Tensor:
        """[N, D] the mean of each sample's tokens but the first and registers, such as the patches
        after [CLS]."""
        lengths_N1 = self.tokens.lengths.to(self.hidden_TD.device).unsqueeze(1)
        left_ND = self.padded()[:, : 1 + self.registers].sum(1) if self.registers else self.first()
        count_N1 = (lengths_N1 - 1 - self.registers).clamp(min=1)
        return (self.mean() * lengths_N1 - left_ND) / count_N1

    def last(self) -> Tensor:
        """[N, D] the vector of each sample's last token."""
        hidden_NLD = self.padded()
        rows = torch.arange(self.tokens.samples, device=self.hidden_TD.device)
        if self.tokens.valid is None:
            return hidden_NLD[:, -1]
        places_NL = torch.arange(self.tokens.length, device=rows.device) * self.tokens.valid
        return hidden_NLD[rows, places_NL.argmax(1)]

    def max(self) -> Tensor:
        """[N, D] the largest value of each component over a sample's tokens."""
        hidden_NLD = self.padded()
        if self.tokens.valid is not None:
            hidden_NLD = hidden_NLD.masked_fill(~self.tokens.valid.unsqueeze(-1), -torch.inf)
        return hidden_NLD.amax(1)

    def pooled(self, pooling: str) -> Tensor:
        """[N, D] one vector a sample: see `Pooling`."""
        return getattr(self, pooling)()

    def vector(self, pooling: str = "first") -> Tensor:
        """[N, D] one unit-length vector a sample, for cosine similarity."""
        return F.normalize(at_least_float32(self.pooled(pooling)), dim=-1)

    def kept(self, modalities: Collection[Modality]) -> Tensor:
        """[M] the flat indices of the tokens for which logits are wanted, of these modalities."""
        device = self.hidden_TD.device
        wanted = [condition.modality in modalities for condition in self.tokens.conditions]
        inside_T = torch.tensor(wanted).repeat_interleave(torch.tensor(self.tokens.sizes))
        inside_T = inside_T.to(device)
        if self.keep_NL is not None:
            inside_T = inside_T & self.tokens.to_tokens(self.keep_NL)
        return inside_T.nonzero().squeeze(1)

    def positions(self, kept_M: Tensor) -> Tensor:
        """[M, 2] sample and padded position of tokens given by their flat indices."""
        place_M = kept_M if self.tokens.index is None else self.tokens.index[kept_M]
        length = self.tokens.length
        return torch.stack([place_M // length, place_M % length], dim=1)


def joint(vectors: Sequence[Tensor]) -> Tensor:
    """[N, D] the unit vector of samples that several passes encode, such as the frames of a clip:
    their mean direction."""
    if len(vectors) == 1:
        return vectors[0]
    return F.normalize(torch.stack(list(vectors)).sum(0), dim=-1)


@dataclass(frozen=True)
class TargetOutput:
    """`loss`: a scalar, None without labels. `logits`: see each target; their shape does not depend
    on the labels. `positions`: [M, 2] sample and padded position of each row of logits, for targets
    with logits per token [M, ...]; None for targets with logits per sample."""

    loss: Tensor | None
    logits: Tensor
    positions: Tensor | None = None


class ModelSpec(Protocol):
    """What a target may ask about the model that it belongs to (`ModelConfig` answers)."""

    @property
    def width(self) -> int:
        """Size of the vectors between components."""
        ...

    @property
    def encoder(self) -> EncoderConfig:
        """The encoder that streams share."""
        ...

    @property
    def decoder(self) -> DecoderConfig | None:
        """The decoder, if there is one."""
        ...

    @property
    def streams(self) -> Any:
        """The streams."""
        ...

    @property
    def tasks(self) -> Any:
        """The tasks by name."""
        ...

    @property
    def targets(self) -> Any:
        """The targets by name."""
        ...

    @property
    def widths(self) -> dict[Modality, int]:
        """The width of each stream."""
        ...

    @property
    def skills(self) -> dict[Modality, str]:
        """Modality → skill."""
        ...

    def vocabulary(self, modality: Modality) -> int:
        """How many tokens a modality has; 0 for none."""
        ...

    def sharers(self, modality: Modality) -> frozenset[Modality]:
        """The modalities that use the same tokens."""
        ...

    def word_size(self, modality: Modality) -> int:
        """The size of a modality's word embedding."""
        ...

    def answer_vocabulary(self, modality: Modality) -> int:
        """How many tokens are predicted: the decoder's, or those of a modality."""
        ...

    def answer_size(self, modality: Modality) -> int:
        """The size of the embedding of the tokens that are predicted."""
        ...

    def encoder_of(self, modality: Modality) -> EncoderConfig:
        """The encoder that runs on a stream."""
        ...

    def visual(self, modality: Modality) -> ImageStream | VideoStream:
        """The image or the video stream. Raises ConfigError where there is none."""
        ...


class TrainingData(Protocol):
    """The training data of a task, as far as settings and assets are fitted on it."""

    @property
    def name(self) -> str:
        """The task's name."""
        ...

    @property
    def settings(self) -> TaskSettings:
        """The task's settings."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the training."""
        ...

    def column(self, field: str, whole: bool = True) -> list[Any]:
        """All values of a field in the training data. `whole`: whatever share of it is trained
        on."""
        ...

    def features(self, modality: Modality) -> Iterator[Features]:
        """Some samples as the model reads them; broken ones are left out."""
        ...

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text, without special tokens."""
        ...


class TargetConfig(Config):
    """Settings of a target, and what the package needs to know about it.

    A subclass adds its settings, sets the class variables that differ, and is registered by its
    kind: `@TARGETS.register("my_target")`.
    """

    label_field: ClassVar[str | None] = None
    """Field of a row that holds what is to be predicted; None when it is made from the input."""
    fitted: ClassVar[tuple[str, ...]] = ()
    """Settings that `fit` takes from the training data where the configuration leaves them open."""
    decoding_options: ClassVar[frozenset[str]] = frozenset()
    """Settings that change how answers are written, but not what the model computes."""
    stands_in_for: ClassVar[frozenset[str]] = frozenset()
    """Kinds of targets in whose place it can be used: it learns the same labels."""
    masks_inputs: ClassVar[bool] = False
    """Whether its tasks replace parts of the input by the embedding's mask vector."""
    compares_vectors: ClassVar[bool] = False
    """Whether its module needs nothing but a vector of each pass: see `Target.compare_vectors`."""
    compares_samples: ClassVar[bool] = False
    """Whether its loss compares the samples of a batch, so that a batch needs two of them."""
    reads_decoder: ClassVar[bool] = False
    """Whether it can look at a decoder's tokens in place of the encoder's."""
    writes_text: ClassVar[bool] = False
    """Whether it predicts the next token, so that texts can be generated with it."""
    predicts_previous: ClassVar[bool] = False
    """Whether it also predicts the token before each position (label `previous_ids`)."""
    any_width: ClassVar[bool] = False
    """Whether it reads vectors of any width, rather than those of the model's width alone."""
    packable: ClassVar[bool] = False
    """Whether samples of one span may share rows in training, as it predicts tokens alone."""
    asset: ClassVar[str | None] = None
    """Name of a file that is fitted on training data and saved with the model."""

    kind: str = ""
    """The name under which the class is registered."""

    @property
    def mask_ratio(self) -> float | None:
        """Share of the input's patches that its tasks mask by default; None where they do not."""
        return None

    @property
    def tied_to(self) -> Modality | None:
        """The modality whose word embedding is the output layer; None without such a layer."""
        return None

    @property
    def open_settings(self) -> tuple[str, ...]:
        """The `fitted` settings that the configuration leaves open."""
        return tuple(name for name in self.fitted if getattr(self, name) in ([], None))

    @property
    def assets(self) -> frozenset[str]:
        """Names of the files that it needs beside the weights."""
        return frozenset({self.asset} if self.asset else ())

    def build(self, model: ModelSpec) -> Target:
        """The module, with fresh weights."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is built")

    def check(self, model: ModelSpec) -> Iterator[str]:
        """Faults of the target in this model, as the end of a sentence that begins with its name:
        what is wrong, and what to change."""
        return iter(())

    def check_task(self, model: ModelSpec, task: str) -> Iterator[str]:
        """Faults of a task that uses the target, in the same form."""
        return iter(())

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        """Values of the `fitted` settings, from the training data of the tasks that share it.

        Raises ConfigError for labels from which nothing can be learned.
        """
        return {}

    def fitted_like(self, values: Mapping[str, Any], base: TargetConfig) -> dict[str, Any]:
        """The values that `fit` found, for a model that begins with the weights of a base: the same
        labels stand in the base's order, because each is a row of its weights."""
        return {
            name: getattr(base, name)
            if self.keeps_labels(value, getattr(base, name, None))
            else value
            for name, value in values.items()
        }

    def keeps_labels(self, own: Any, known: Any) -> bool:
        """Whether the labels of the base are taken for those of the data: if they are the same."""
        lists = isinstance(own, list) and isinstance(known, list)
        return lists and len(own) == len(known) and set(own) == set(known)

    def fit_assets(self, data: TrainingData, model: ModelSpec) -> dict[str, bytes]:
        """The files of `assets`, from a task's training data. Raises ConfigError without data."""
        return {}

    def load_asset(self, content: bytes) -> Any:
        """What the file `asset` holds, for building examples."""
        raise NotImplementedError(f"{type(self).__name__} has no asset")


class SampleTargetConfig(TargetConfig):
    """Settings of a target on one vector a sample."""

    hidden: bool = True
    """Whether the vector goes through BERT's pooler, a dense layer and a nonlinearity."""
    hidden_size: Positive | None = None
    """Width of the pooler's dense layer (wav2vec 2.0: 256); the model's width if absent."""
    activation: Literal["tanh", "relu", "gelu", "none"] = "tanh"
    """The pooler's nonlinearity (BERT: tanh; DistilBERT: relu; ELECTRA: gelu; wav2vec 2.0:
    none)."""
    norm_epsilon: PositiveFloat | None = None
    """Adds a layer normalization of that vector with this epsilon (BEiT, VideoMAE); none if
    absent."""
    transform: TransformConfig | None = None
    """A dense layer, a nonlinearity and a norm behind the pooler, or in its place (ModernBERT).
    Default: none."""

    @property
    def sample_options(self) -> dict[str, Any]:
        """The arguments of `SampleTarget` that the settings give."""
        names = {*SampleTargetConfig.model_fields, "pooling"} - {"kind"}
        return {name: x for name, x in self if name in names}


class HeadConfig(SampleTargetConfig):
    """Settings of a linear layer on one vector a sample."""

    pooling: Pooling | Poolings = "first"
    """How a sample's tokens become one vector: `first` or `last` token, `mean` or `max` of all
    tokens, or `rest`, the mean of all but the first. The vectors of a list are concatenated
    (DINOv2: `[first, rest]`)."""
    bias: bool = True
    """Whether the last layer adds a bias (GPT-2, LLaMA: none)."""


TARGETS: Registry[type[TargetConfig]] = Registry("kind of target")
"""Kind → configuration class. A model's configuration chooses among them by `kind`."""


class Target(nn.Module):
    """A loss on the encoder's output.

    `modalities`: of the spans whose tokens it looks at. `labels`: names of the labels that it
    compares its logits with. `per_token`: whether these are labels of positions, over which the
    loss is a mean. `tuned`: names of its parameters that prompt tuning trains.
    """

    modalities: Collection[Modality] = frozenset(Modality)
    labels: Sequence[str] = ()
    per_token: bool = False
    tuned: Collection[str] = ()
    embeds: bool = False
    """Whether `vector` is what its tasks compare samples by."""

    @abstractmethod
    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """`labels`: by name, empty for inference.

        `output_embeddings`: what the output is compared with, if anything: the word embedding
        [V, D] that the output layer is tied to, or the unit vectors [C, D] of the candidates.
        """

    def loss_alone(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> Tensor | None:
        """The loss that `forward` returns, for a caller who does not need the logits."""
        return self(passes, labels, output_embeddings).loss

    def vector(self, encoded: Encoded) -> Tensor:
        """[N, D] the unit-length vector of each sample of a pass."""
        return encoded.vector()

    def compare_vectors(
        self, vectors: Sequence[Tensor], labels: Mapping[str, Tensor]
    ) -> TargetOutput:
        """What `forward` returns, from the vectors [N, D] that `vector` gave for each pass. Raises
        TypeError for a target that looks at more than these."""
        raise TypeError(f"{type(self).__name__} does not compare vectors alone")

    def loss_terms(self, batch: Batch) -> int:
        """How many terms the loss of a batch is the mean of: labelled positions, or samples."""
        labels = [batch.labels[name] for name in self.labels if name in batch.labels]
        if not self.per_token or not labels:
            return len(batch)
        spans = [batch.layout.spans[s] for s in batch.layout.passes[-1]]
        seen = torch.tensor([span.modality in self.modalities for span in spans])
        seen_L = seen.repeat_interleave(torch.tensor([span.length for span in spans]))
        return sum(int((label_NL[:, seen_L] != IGNORE).sum()) for label_NL in labels)


class SampleTarget(Target):
    """A target on one vector [N, D] a sample.

    `pooling`: how the vector is made from the tokens; those of several are concatenated. `hidden`:
    whether it then goes through BERT's pooler, a dense layer and the `activation`. `norm_epsilon`:
    adds a layer normalisation before the pooler. `hidden_size`: size of what the pooler gives, if
    that is not `width`. `compared`: number of such vectors that the pooler reads at once.
    `attention`: the module of the pooling `attention`. `transform`: what follows the pooler.
    """

    def __init__(
        self,
        width: int,
        hidden: bool = True,
        pooling: str | Sequence[str] = "first",
        activation: str = "tanh",
        norm_epsilon: float | None = None,
        hidden_size: int | None = None,
        compared: int = 1,
        attention: nn.Module | None = None,
        transform: TransformConfig | None = None,
    ) -> None:
        super().__init__()
        self.poolings = [pooling] if isinstance(pooling, str) else pooling
        self.attention = attention
        size = width * len(self.poolings)
        self.norm = None if norm_epsilon is None else nn.LayerNorm(size, norm_epsilon)
        self.pooler = nn.Linear(size * compared, hidden_size or width) if hidden else None
        self.size = size * compared if self.pooler is None else self.pooler.out_features
        self.activation = ACTIVATIONS[activation]
        self.last = build_transform(transform, self.size)

    def sample_vector(self, encoded: Encoded) -> Tensor:
        """[N, D] of a pass, after the pooler."""
        return self.transform(self.pool(encoded))

    def vector(self, encoded: Encoded) -> Tensor:
        """[N, D] the unit vectors of a pass, before the pooler."""
        return F.normalize(at_least_float32(self.pool(encoded)), dim=-1)

    def pool(self, encoded: Encoded) -> Tensor:
        """[N, D] of a pass, before the pooler."""
        parts = [
            self.attention(encoded)
            if self.attention and name == "attention"
            else encoded.pooled(name)
            for name in self.poolings
        ]
        x_ND = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        return x_ND if self.norm is None else self.norm(x_ND)

    def transform(self, x_ND: Tensor) -> Tensor:
        """The pooler and the transform behind it, if there are."""
        return self.last(x_ND if self.pooler is None else self.activation(self.pooler(x_ND)))


class Head(SampleTarget):
    """A linear layer on one vector a sample. `sample`: arguments of `SampleTarget`.

    `inner`: width of a layer between the pooler and the last one, with its norm and GELU (ViLT,
    arXiv 2102.03334 section 4.2); None for none.
    """

    tuned = ("output.weight", "output.bias")

    def __init__(
        self,
        width: int,
        outputs: int,
        bias: bool = True,
        inner: int | None = None,
        **sample: Any,
    ) -> None:
        super().__init__(width, **sample)
        self.inner = nn.Identity()
        if inner:
            self.inner = nn.Sequential(nn.Linear(self.size, inner), nn.LayerNorm(inner), nn.GELU())
        self.output = nn.Linear(inner or self.size, outputs, bias)

    def outputs(self, encoded: Encoded) -> Tensor:
        """[N, outputs] of a pass."""
        return at_least_float32(self.output(self.inner(self.sample_vector(encoded))))


def output_weight(own: nn.Linear | None, tied: Tensor | None) -> Tensor:
    """[V, D] the weight of an output layer: its own, or the word embedding that it is tied to.
    Raises ValueError without both."""
    weight = tied if own is None else own.weight
    if weight is None:
        raise ValueError("the output is tied to a word embedding, and the stream has none")
    return weight


def labels_at(encoded: Encoded, labels_NL: Tensor | None, kept_M: Tensor) -> Tensor | None:
    """[M] the labels of the tokens given by their flat indices; None without labels."""
    if labels_NL is None:
        return None
    return encoded.tokens.to_tokens(labels_NL).index_select(0, kept_M)


def mean_cross_entropy(
    logits_MC: Tensor, labels_M: Tensor | None, smoothing: float = 0.0
) -> Tensor | None:
    """The mean over the rows that have a label; 0 (with a gradient) when no row has one."""
    if labels_M is None:
        return None
    if not (labels_M != IGNORE).any():
        return logits_MC.sum() * 0
    return F.cross_entropy(
        at_least_float32(logits_MC), labels_M, ignore_index=IGNORE, label_smoothing=smoothing
    )


def class_names(labels: Sequence[Any], least: int = 2) -> list[str]:
    """The distinct labels as texts, sorted. Raises ConfigError for fewer than `least`."""
    classes = sorted({name for label in labels if (name := class_name(label)) is not None})
    if len(classes) < least:
        odd = next((repr(label)[:80] for label in labels if isinstance(label, NO_CLASS)), "")
        found = odd and f"; {odd} is no text or number, and several classes need text_multi_label"
        raise ConfigError(
            f"the training data has {len(classes)} classes; check the label column{found}"
        )
    return classes


def present_values(data: Sequence[TrainingData], field: str) -> list[Any]:
    """The values of a field in the training data of all tasks, without missing ones."""
    return [value for one in data for value in one.column(field) if not is_missing(value)]

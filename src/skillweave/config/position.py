"""How attention uses positions: nothing, rotary embeddings, or a bias on the attention scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat

from skillweave.config.base import Positive
from skillweave.config.variants import Tagged, Variant


class RotaryScaling(Variant):
    """A change of the rotary frequencies for texts that are longer than those of the first
    training."""

    kind: str
    """Name of the scaling."""
    factor: PositiveFloat = 1.0
    """How many times longer the texts become."""


class LinearScalingConfig(RotaryScaling):
    """All frequencies are divided by `factor` (position interpolation, arXiv 2306.15595)."""

    kind: Literal["linear"] = "linear"
    """Selects linear scaling, which is the default."""


class Llama3ScalingConfig(RotaryScaling):
    """Low frequencies are divided by `factor`, high ones are kept, those between are interpolated
    (LLaMA 3.1)."""

    kind: Literal["llama3"] = "llama3"
    """Selects the scaling of LLaMA 3.1."""
    low_frequency_factor: PositiveFloat = 1.0
    """Wavelengths above `original_length` / `low_frequency_factor` are scaled by the whole
    `factor`."""
    high_frequency_factor: PositiveFloat = 4.0
    """Wavelengths below `original_length` / `high_frequency_factor` are not scaled."""
    original_length: Positive = 8192
    """Number of positions in the first training."""


class YarnScalingConfig(RotaryScaling):
    """Low frequencies are divided by `factor`, high ones are kept, those between are interpolated
    by their rank (YaRN, arXiv 2309.00071 section 3.2; Qwen)."""

    kind: Literal["yarn"] = "yarn"
    """Selects YaRN."""
    fast_rotations: PositiveFloat = 32.0
    """Frequencies with more rotations than this within `original_length` are not scaled (β in the
    paper)."""
    slow_rotations: PositiveFloat = 1.0
    """Frequencies with fewer rotations than this within `original_length` are scaled by the whole
    `factor` (α in the paper)."""
    attention_factor: PositiveFloat | None = None
    """Factor on the rotated queries and keys. Default: 1 + ln(`factor`) / 10 (section 3.4)."""
    original_length: Positive = 8192
    """Number of positions in the first training."""


class LongRopeScalingConfig(Variant):
    """Each frequency is divided by a factor of its own, which depends on whether the sequence is
    longer than those of the first training (LongRoPE, arXiv 2402.13753; Phi-3)."""

    kind: Literal["longrope"] = "longrope"
    """Selects LongRoPE."""
    short_factors: list[PositiveFloat]
    """Factors of the frequencies in sequences of at most `original_length` positions, padding
    included."""
    long_factors: list[PositiveFloat]
    """Factors of the frequencies in longer sequences."""
    attention_factor: PositiveFloat = 1.0
    """Factor on the rotated queries and keys."""
    original_length: Positive = 4096
    """Number of positions in the first training."""


ScalingConfig = Annotated[
    LinearScalingConfig | Llama3ScalingConfig | YarnScalingConfig | LongRopeScalingConfig, Tagged()
]


class Position(Variant):
    """What attention computes from positions, in addition to the position embeddings of the
    streams."""

    kind: str
    """Name of the method."""

    def check(self, head_size: int) -> Iterator[str]:
        """What does not fit heads of this size."""
        yield from ()


class FixedPosition(Position):
    """Positions without parameters."""

    per_layer: ClassVar[bool] = False


class LearnedBias(Position):
    """A bias on the attention scores that is learned."""

    per_layer: bool = False
    """Whether each layer learns biases of its own. Default: all layers share them."""


class NoPositionConfig(FixedPosition):
    """Attention does not use positions; the streams add position embeddings to their input (BERT,
    ViT)."""

    kind: Literal["none"] = "none"
    """Selects attention without positions, which is the default."""


class RotaryConfig(FixedPosition):
    """Rotary position embeddings: queries and keys are rotated by angles that grow with their
    position (RoFormer, arXiv 2104.09864; LLaMA)."""

    kind: Literal["rope"] = "rope"
    """Selects rotary position embeddings."""
    base: PositiveFloat = 10_000.0
    """Base of the frequencies base^(-2i / head size), in radians per position (θ in LLaMA)."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the numbers in a head that are rotated, from the first on (`partial_rotary_factor`;
    GPT-NeoX, Phi)."""
    interleaved: bool = False
    """Whether the two numbers of a pair are neighbours (RoFormer, GPT-J, Moonshine), rather than
    half of the rotated numbers apart (LLaMA)."""
    scaling: ScalingConfig | None = None
    """Change of the frequencies for texts longer than those of the first training. Default:
    none."""

    def check(self, head_size: int) -> Iterator[str]:
        """Rotations need an even number of dimensions."""
        if (size := self.size(head_size)) % 2 or not size:
            yield (
                f"rope turns pairs of numbers, and {size} of the {head_size} in a head are rotated;"
                " change head_size or position.share"
            )
        if isinstance(self.scaling, LongRopeScalingConfig):
            for name in ("short_factors", "long_factors"):
                if (count := len(getattr(self.scaling, name))) != size // 2:
                    yield f"position.scaling.{name} has {count} factors for {size // 2} frequencies"

    def size(self, head_size: int) -> int:
        """How many of the numbers in a head are rotated."""
        return int(head_size * self.share)


class Rotary2DConfig(FixedPosition):
    """Rotary embeddings of the patches of an image: queries and keys are rotated by angles that are
    proportional to the row in one half of their pairs, and to the column in the other (DINOv3,
    arXiv 2508.10104 section 3.1). Other tokens are not rotated."""

    kind: Literal["rope_2d"] = "rope_2d"
    """Selects rotary embeddings of rows and columns."""
    grid: tuple[Positive, Positive] = (14, 14)
    """Number of rows and columns of patches in an image."""
    base: PositiveFloat = 100.0
    """Base of the frequencies base^(-4i / head size). Rows and columns count from -1 to 1, which a
    frequency of 1 turns by 4 π."""
    shift: PositiveFloat | None = None
    """Augmentation in training: largest shift of all rows and of all columns. Default: none."""
    jitter: PositiveFloat | None = None
    """Augmentation in training: largest factor of all rows and of all columns, each its own.
    Default: none."""
    rescale: PositiveFloat | None = None
    """Augmentation in training: largest factor of all rows and columns together (DINOv3: 2).
    Default: none."""

    def check(self, head_size: int) -> Iterator[str]:
        """Rotations in two dimensions need two pairs."""
        if head_size % 4:
            yield (
                f"rope_2d turns pairs of numbers by rows and by columns, and heads have"
                f" {head_size}; give a head_size that is a multiple of 4"
            )


class AlibiConfig(FixedPosition):
    """Attention with linear biases: each head subtracts a fixed multiple of the distance from its
    scores (ALiBi, arXiv 2108.12409; BLOOM)."""

    kind: Literal["alibi"] = "alibi"
    """Selects linear biases."""


class T5BiasConfig(LearnedBias):
    """A learned bias on the scores for each head and bucket of distances (T5, arXiv 1910.10683
    section 2.1)."""

    kind: Literal["t5_bias"] = "t5_bias"
    """Selects the relative position biases of T5."""
    buckets: Positive = 32
    """Number of buckets, each with a bias of its own."""
    max_distance: Positive = 128
    """Distance in tokens from which on all distances share the last bucket."""
    gated: bool = False
    """Whether each layer multiplies the biases of a token by gates that it computes from the
    token's vector (gated relative position bias; WavLM, arXiv 2110.13900 section 3.1)."""


class Relative2DConfig(LearnedBias):
    """A learned bias on the scores for each head and each offset in rows and columns between the
    patches of an image (BEiT, arXiv 2106.08254)."""

    kind: Literal["relative_2d"] = "relative_2d"
    """Selects the relative position biases of BEiT."""
    grid: tuple[Positive, Positive] = (14, 14)
    """Number of rows and columns of patches in an image."""


class DisentangledConfig(LearnedBias):
    """Disentangled attention: scores have terms of contents and of learned vectors of distances,
    which go through the layer's own query and key projections (DeBERTa, arXiv 2006.03654; version
    3: 2111.09543)."""

    kind: Literal["disentangled"] = "disentangled"
    """Selects disentangled attention."""
    terms: list[Literal["c2p", "p2c"]] = Field(default=["c2p", "p2c"], min_length=1)
    """Terms of the scores: content to position, position to content. With n of them, scores are
    divided by √((1 + n) · head_size)."""
    buckets: Positive | None = 256
    """Number of vectors for distances in each direction: those up to half of it have their own, the
    others share them on a logarithmic scale. Default: one for each distance."""
    max_distance: Positive = 512
    """Distance in tokens from which on all distances share a vector."""
    norm: bool = True
    """Whether the vectors of distances are normalised."""

    def check(self, head_size: int) -> Iterator[str]:
        """The logarithmic scale begins before its end."""
        if self.buckets and self.buckets // 2 >= self.max_distance - 1:
            yield (
                f"{self.buckets} buckets reach {self.buckets // 2} tokens, which is not below"
                f" max_distance {self.max_distance}; lower buckets, or set it to null"
            )


PositionConfig = Annotated[
    NoPositionConfig
    | RotaryConfig
    | Rotary2DConfig
    | T5BiasConfig
    | AlibiConfig
    | Relative2DConfig
    | DisentangledConfig,
    Tagged(),
]

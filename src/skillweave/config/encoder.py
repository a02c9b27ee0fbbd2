"""The encoder's configuration: its sizes, the options of its layers, and where it is sparse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, model_validator
from pydantic_core import PydanticKnownError

from skillweave.batch import SPAN_NAMES
from skillweave.config.base import Config, Positive, Share


def _span_name(name: str) -> str:
    if name not in SPAN_NAMES:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(SPAN_NAMES)})
    return name


SpanName = Annotated[str, AfterValidator(_span_name)]


class RouteConfig(Config):
    """How the experts of one sparse place are mixed (Uni-Perceiver-MoE section 3.2; `skill`:
    SkillNet section 3.2)."""

    route: Literal[
        "dense", "skill", "token", "context", "modality", "task", "attribute", "follow"
    ] = "dense"
    """`dense`: one expert. `skill`: one expert per skill, picked by the table. In the others a
    learned gate picks: `token` from the token, `context` from the token and its sample's inputs,
    `modality` and `task` by a learned vector each, `attribute` from what the layout says. `follow`:
    the choice of the linear layer before it in the same part."""
    skills: dict[SpanName, str] | None = None
    """Route `skill`: modality → skill; absent, each is a skill of its own (SkillNet Table 1). Spans
    that are targets or causal may have their own, as in `text/target: read`, `text/target/causal:
    write`."""
    experts: Positive = 5
    """Learned gates: how many experts (SkillNet section 5.1: as many as there are skills;
    Uni-Perceiver-MoE: 8)."""
    active: Positive = 2
    """Learned gates: how many of them are used at once; as gates sum to 1, with 1 no task teaches
    the gate."""
    noise: float = Field(default=0.0, ge=0)
    """Learned gates: standard deviation of the normal noise on the logits in training, the same on
    all ranks (authors: 0.125)."""
    balance: float = Field(default=0.0, ge=0)
    """Routes `token` and `context`: weight of the loss that evens the experts' load; 0 for none."""
    attributes: Literal["paper", "authors", "extended"] = "paper"
    """Route `attribute`: the 8 bits of Uni-Perceiver-MoE Table 2; those of its authors' code, for
    their weights; or the 8 and 9 more, which tell sound, video and code apart."""

    @property
    def learned(self) -> bool:
        """Whether a gate is learned."""
        return self.route not in ("dense", "skill", "follow")

    @model_validator(mode="after")
    def _consistent(self) -> RouteConfig:
        if self.learned and self.active > self.experts:
            raise ValueError(
                f"active {self.active} is more than the {self.experts} experts there are; lower it"
                " or add experts"
            )
        if self.route == "follow" and self != RouteConfig.model_construct(route="follow"):
            raise ValueError(
                "route 'follow' has no options of its own; set them where the choice is made"
            )
        return self


DENSE, FOLLOW = RouteConfig(), RouteConfig(route="follow")
LEADERS = {"attention_output": "qkv", "feed_forward_out": "feed_forward_in"}
"""Linear layer that may follow → the one before it in the same part."""
PLACES = ("qkv", "attention_output", "feed_forward_in", "feed_forward_out", "feed_forward")
"""Where a layer can be sparse."""


class SparseConfig(Config):
    """Where the encoder is sparse; everything not named is dense and shared."""

    qkv: RouteConfig = DENSE
    """Query, key and value projections: `skill` makes SkillNet (section 3.2)."""
    attention_output: RouteConfig = DENSE
    """The projection after attention; `follow` takes the choice of `qkv`."""
    feed_forward_in: RouteConfig = DENSE
    """The feed-forward's first linear layer."""
    feed_forward_out: RouteConfig = DENSE
    """The feed-forward's second linear layer; `follow` takes the choice of `feed_forward_in`."""
    linears: RouteConfig = DENSE
    """All four at once, as in Uni-Perceiver-MoE: `qkv` and `feed_forward_in` with this route, the
    others follow."""
    feed_forward: RouteConfig = DENSE
    """Whole feed-forwards mixed after their nonlinearity: `token` makes the MoE baseline (SkillNet
    section 5.1)."""
    every: Positive = 1
    """Sparse in every so many layers, from the first on; the others are dense (Uni-Perceiver-MoE-B
    and -L: 2)."""

    @model_validator(mode="after")
    def _consistent(self) -> SparseConfig:
        faults = list(self._faults())
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        named = [place for place in PLACES if getattr(self, place).route != "dense"]
        inside = [
            place
            for place in ("linears", "feed_forward_in", "feed_forward_out")
            if getattr(self, place).route != "dense"
        ]
        for place in ("linears", *named):
            if getattr(self, place).route == "follow" and place not in LEADERS:
                yield f"{place} has nothing before it to follow; name the route itself"
        for place in named:
            if self.linears.route != "dense" and place != "feed_forward":
                yield (
                    f"linears sets {place} too; give one of them (in a recipe with a base,"
                    f" `{place}: null` takes it away)"
                )
        if self.feed_forward.route != "dense" and inside:
            yield (
                f"feed_forward mixes whole feed-forwards, {inside[0]} the layers inside them; give"
                " one of them"
            )

    def at(self, layer: int) -> dict[str, RouteConfig]:
        """The route of each of `PLACES` in a layer, counted from 0: what follows a dense layer is
        dense."""
        if layer % self.every:
            return dict.fromkeys(PLACES, DENSE)
        routes = {place: getattr(self, place) for place in PLACES}
        if self.linears.route != "dense":
            routes |= dict.fromkeys(LEADERS.values(), self.linears) | dict.fromkeys(LEADERS, FOLLOW)
        behind_dense = [
            place for place, leader in LEADERS.items() if routes[leader].route == "dense"
        ]
        return routes | {place: DENSE for place in behind_dense if routes[place].route == "follow"}


class RotaryScaling(Config):
    """How rotary positions reach beyond the length that a model was first trained on."""

    kind: Literal["linear", "llama3", "yarn"] = "linear"
    """`linear`: all angles divided by `factor` (arXiv 2306.15595). `llama3`, `yarn`: slow ones
    alone, as in LLaMA 3.1, and as in YaRN (arXiv 2309.00071), which Qwen uses."""
    factor: PositiveFloat = 1.0
    """How many times longer texts become."""
    low_frequency_factor: PositiveFloat = 1.0
    """`llama3`: waves longer than `original_length` divided by it are slowed wholly."""
    high_frequency_factor: PositiveFloat = 4.0
    """`llama3`: waves shorter than `original_length` divided by it stay as they are."""
    fast_rotations: PositiveFloat = 32.0
    """`yarn`: waves that turn more often within `original_length` stay as they are."""
    slow_rotations: PositiveFloat = 1.0
    """`yarn`: waves that turn less often are slowed wholly."""
    attention_factor: PositiveFloat | None = None
    """`yarn`: what turned queries and keys are multiplied by; 1 + ln(factor) / 10 when absent."""
    original_length: Positive = 8192
    """`llama3`, `yarn`: positions of the first training."""


class PositionConfig(Config):
    """How attention knows of positions, beside what the embedding adds."""

    kind: Literal["none", "rope", "t5_bias", "alibi", "relative_2d"] = "none"
    """`rope`: queries and keys are turned by their position (RoFormer, arXiv 2104.09864).
    `t5_bias`: a learned bias for each bucket of distances (T5, arXiv 1910.10683 section 2.1).
    `alibi`: a fixed one that grows with distance (arXiv 2108.12409). `relative_2d`: a learned one
    for each offset in rows and columns among the patches of a picture (BEiT, arXiv 2106.08254)."""
    base: PositiveFloat = 10_000.0
    """`rope`: the slowest wave is about so many positions long, times 2 π."""
    scaling: RotaryScaling | None = None
    """`rope`: for texts longer than those of the first training."""
    buckets: Positive = 32
    """`t5_bias`: how many distances are told apart."""
    max_distance: Positive = 128
    """`t5_bias`: from here on all distances are one."""
    grid: tuple[Positive, Positive] = (14, 14)
    """`relative_2d`: rows and columns of patches in a picture."""
    per_layer: bool = False
    """`t5_bias`, `relative_2d`: each layer learns biases of its own; otherwise all layers share
    them."""

    @model_validator(mode="after")
    def _learned(self) -> PositionConfig:
        if self.per_layer and self.kind not in ("t5_bias", "relative_2d"):
            raise ValueError(
                f"position {self.kind!r} learns nothing, so layers cannot differ; leave"
                " per_layer out"
            )
        return self


BIASED = ("qkv", "attention_output", "feed_forward", "norm")
Biased = Literal["qkv", "query_value", "attention_output", "feed_forward", "norm"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]
Norm = Literal["layer", "rms"]
COMMON = frozenset({"name", "layers", "dropout", "norm", "norm_epsilon", "biases"})
"""Options of every encoder; norm and bias are then those of the embedding."""
OWN: dict[str, frozenset[str]] = {
    "rnn": frozenset({"input_size", "direction"}),
    "lstm": frozenset({"input_size", "direction", "cell"}),
    "gru": frozenset({"input_size", "direction"}),
    "gated_cnn": frozenset({"input_size", "kernel", "residual"}),
}
"""Encoders other than the Transformer → their further options; all others are the Transformer's."""


class EncoderConfig(Config):
    """The encoder all streams share."""

    name: Literal["transformer", "rnn", "lstm", "gru", "gated_cnn"] = "transformer"
    """Encoder module. The recurrent ones and the gated CNN (arXiv 1612.08083) have `layers`,
    `dropout` and the options that name them; all others are the Transformer's."""
    layers: Positive = 12
    """Number of blocks."""
    input_size: Positive | None = None
    """`rnn`, `lstm`, `gru`, `gated_cnn`: size of the embeddings, which the first layer takes as
    they are; absent, the width."""
    direction: Literal["forward", "both", "apart"] = "forward"
    """`rnn`, `lstm`, `gru`: how a text is read. `both`: each layer reads it both ways, and each way
    has half of the width. `apart`: so do two stacks that meet at the end alone, so that neither
    sees what it is to predict (ELMo, arXiv 1802.05365)."""
    cell: Positive | None = None
    """`lstm`: size of the cell, projected to that of the output (ELMo: 4,096); absent, they are the
    same."""
    kernel: Positive = 4
    """`gated_cnn`: words that a convolution sees, the last of which is its own."""
    residual: Positive = 2
    """`gated_cnn`: layers of a residual block; the first layer stands before them."""
    distinct_layers: Positive | None = None
    """Blocks with weights of their own, each used for a run of layers (ALBERT: 1); absent, every
    layer has its own."""
    heads: Positive = 12
    """Attention heads; the model's width must be a multiple, unless `head_size` is given."""
    key_value_heads: Positive | None = None
    """Heads of keys and values, each shared by as many query heads (grouped-query attention);
    absent, as many as `heads`."""
    head_size: Positive | None = None
    """Width of a head; absent, the model's width divided by `heads`."""
    scaled: bool = True
    """Attention scores divided by √head_size; T5 leaves it out."""
    position: PositionConfig = PositionConfig()
    """How attention knows of positions."""
    window: Positive | None = None
    """Sliding window: a position sees only so many up to itself, and as many behind it where
    attention goes both ways."""
    qk_norm: bool = False
    """RMS norm of each head's queries and keys (Qwen 3)."""
    feed_forward: Positive = 3072
    """Width inside the feed-forward."""
    activation: Activation = "gelu"
    """The feed-forward's nonlinearity."""
    gated: bool = False
    """The feed-forward's inner vector is multiplied by a second one that goes through the
    nonlinearity (arXiv 2002.05202)."""
    biases: list[Biased] = list(BIASED)
    """Which layers add a bias. `query_value` in place of `qkv`: keys add none (BEiT), and experts
    share the others'."""
    norm: Norm = "layer"
    """`layer`: mean 0 and variance 1 (BERT). `rms`: mean square 1, without a mean or a bias (T5,
    LLaMA)."""
    norm_position: Literal["pre", "post"] = "post"
    """Normalisation before each part (with a last one at the end) or after each residual sum
    (BERT)."""
    last_norm: bool = True
    """`pre`: whether there is the last one at the end; a target may have its own instead (BEiT,
    VideoMAE)."""
    norm_epsilon: PositiveFloat = 1e-12
    """Added to the variance in normalisation."""
    layer_scale: PositiveFloat | None = None
    """Each part's output is multiplied by a learned vector that starts here (CaiT, arXiv
    2103.17239); absent, by none."""
    dropout: Share = 0.1
    """Dropout of embeddings and of each part's output."""
    attention_dropout: Share = 0.1
    """Dropout of attention weights."""
    activation_dropout: Share = 0.0
    """Dropout inside the feed-forward, after its nonlinearity (BART, wav2vec 2.0)."""
    drop_path: Share = 0.0
    """Chance with which a sample skips a part of the last layer in training; earlier layers less
    (arXiv 1603.09382)."""
    prompts: NonNegativeInt = 0
    """Learned vectors that stand before each layer's keys and values; set by the recipe's
    `tuning`."""
    sparse: SparseConfig = SparseConfig()
    """Where experts stand and which route mixes them."""

    @model_validator(mode="after")
    def _options(self) -> EncoderConfig:
        known = COMMON | OWN.get(
            self.name, set(type(self).model_fields) - frozenset().union(*OWN.values())
        )
        changed = {
            name
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.default
        }
        if strange := sorted(changed - known):
            raise ValueError(
                f"{self.name!r} has no {', '.join(strange)}; its options are"
                f" {', '.join(sorted(known))}"
            )
        return self

    @model_validator(mode="after")
    def _heads(self) -> EncoderConfig:
        if self.heads % (self.key_value_heads or self.heads):
            raise ValueError(
                f"{self.heads} heads cannot share {self.key_value_heads} key_value_heads evenly;"
                " give a divisor"
            )
        if self.layers % (self.distinct_layers or self.layers):
            raise ValueError(
                f"{self.layers} layers are not a multiple of {self.distinct_layers} distinct_layers"
            )
        if {"qkv", "query_value"} <= set(self.biases):
            raise ValueError(
                "biases has both qkv and query_value, which is a part of it; give one of them"
            )
        return self

    def size(self, width: int) -> int:
        """The width of a head."""
        return self.head_size or width // self.heads

    def misfit(self, width: int) -> Iterator[str]:
        """What does not go together with the model's width."""
        if self.name in OWN:
            size = width if self.direction == "forward" else width // 2
            if self.direction != "forward" and width % 2:
                yield f"width {width} is odd, and two directions share it"
            if self.cell and self.cell <= size:
                yield f"cell {self.cell} is projected to {size}, which is not smaller; leave it out"
        elif not self.head_size and width % self.heads:
            yield f"width {width} is not a multiple of {self.heads} heads"
        elif self.position.kind == "rope" and self.size(width) % 2:
            yield (
                f"rope turns pairs of numbers, and heads have {self.size(width)}; give an even"
                " head_size"
            )


class DecoderConfig(EncoderConfig):
    """Blocks that also look at what the encoder made of the input (cross-attention; Transformer,
    arXiv 1706.03762).

    A recurrent decoder attends to it with its states (arXiv 1508.04025).
    """

    @model_validator(mode="after")
    def _forward(self) -> DecoderConfig:
        if self.name == "gated_cnn" or self.direction != "forward":
            raise ValueError(
                "a decoder writes word by word; it is a transformer, rnn, lstm or gru with"
                " direction 'forward'"
            )
        return self

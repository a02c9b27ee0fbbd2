"""Encoders and decoders: one class for each architecture, and where the Transformer is sparse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    model_validator,
)
from pydantic_core import PydanticKnownError

from skillweave.batch import SPAN_NAMES
from skillweave.config.base import Config, Positive, Share, Whole
from skillweave.config.names import Name
from skillweave.config.position import (
    DisentangledConfig,
    NoPositionConfig,
    PositionConfig,
    RotaryConfig,
    T5BiasConfig,
)
from skillweave.config.registry import load_plugins
from skillweave.config.routes import DENSE_ROUTE, FOLLOW_ROUTE, ROUTES, RouteProperties
from skillweave.config.variants import Tagged, Variant


def _span_name(name: str) -> str:
    if name not in SPAN_NAMES:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(SPAN_NAMES)})
    return name


SpanName = Annotated[str, AfterValidator(_span_name)]


def _route_name(name: str) -> str:
    if name not in (*ROUTES, DENSE_ROUTE, FOLLOW_ROUTE):
        load_plugins()
    valid = (*ROUTES, FOLLOW_ROUTE)
    if name not in (*valid, DENSE_ROUTE):
        raise PydanticKnownError("literal_error", {"expected": ", ".join(valid)})
    return name


def _list_routes(schema: dict[str, Any]) -> None:
    schema["enum"] = [*ROUTES, FOLLOW_ROUTE]


def _list_options(schema: dict[str, Any]) -> None:
    for route in ROUTES.values():
        schema["properties"] |= route.options.model_json_schema().get("properties", {})
    schema["additionalProperties"] = False


RouteName = Annotated[str, AfterValidator(_route_name)]


class RouteConfig(Config):
    """How the experts of a sparse layer are chosen and mixed (Uni-Perceiver-MoE section 3.2; for
    `skill` SkillNet section 3.2).

    A route from another package may have further options: those that its class lists.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_list_options)

    route: RouteName = Field(default=DENSE_ROUTE, json_schema_extra=_list_routes)
    """`dense`: one expert, used by everything. `skill`: one expert per skill, chosen by a table.
    With the others a learned gate chooses. Its input is the token (`token`); the token and the
    sample's inputs (`context`); a learned vector of the modality (`modality`) or of the task
    (`task`); attributes of the layout (`attribute`). `follow`: the choice of the linear layer
    before it in the same block."""
    skills: dict[SpanName, Name] | None = None
    """Route `skill`: modality → skill. Default: each modality is a skill of its own (SkillNet Table
    1). Target spans and causal spans may have skills of their own: `text/target: read`,
    `text/target/causal: write`."""
    experts: Positive = 5
    """Learned gates: number of experts. SkillNet section 5.1 has as many as skills,
    Uni-Perceiver-MoE 8."""
    active: Positive = 2
    """Learned gates: number of experts that are used at once (top-k). With 1 the gate gets no
    gradient from the task, unless `renormalise` is false."""
    renormalise: bool = True
    """Learned gates: whether the gates of the `active` experts sum to 1. If not, they are shares of
    a softmax over all experts (`norm_topk_prob: false` of Qwen3-MoE)."""
    noise: float = Field(default=0.0, ge=0)
    """Learned gates: standard deviation of the normal noise that training adds to the logits, the
    same on all ranks (0.125 in the code of Uni-Perceiver-MoE)."""
    balance: float = Field(default=0.0, ge=0)
    """Routes `token` and `context`: weight of the loss that balances the load of the experts; 0 for
    none."""
    attributes: Literal["paper", "authors", "extended"] = "paper"
    """Route `attribute`: which attributes the gate sees. `paper`: the 8 bits of Uni-Perceiver-MoE
    Table 2. `authors`: those of the authors' code, for their weights. `extended`: the 8 bits and 9
    more, which distinguish sound, video and code."""

    @property
    def sparse(self) -> bool:
        """Whether there are experts to choose from."""
        return self.route != DENSE_ROUTE

    @property
    def follows(self) -> bool:
        """Whether the choice is that of the linear layer before."""
        return self.route == FOLLOW_ROUTE

    @model_validator(mode="after")
    def _consistent(self) -> RouteConfig:
        if self.follows:
            if self != RouteConfig.model_construct(route=FOLLOW_ROUTE):
                raise ValueError(
                    "route 'follow' has no options of its own; set them where the choice is made"
                )
            return self
        properties = ROUTES.find(self.route) if self.sparse else RouteProperties
        properties.options.model_validate(self.model_extra or {})
        if properties.learned and self.active > self.experts:
            raise ValueError(
                f"active {self.active} is more than the {self.experts} experts there are; lower it"
                " or add experts"
            )
        return self


DENSE, FOLLOW = RouteConfig(), RouteConfig(route=FOLLOW_ROUTE)
LEADERS = {"attention_output": "qkv", "feed_forward_out": "feed_forward_in"}
"""Linear layer that may follow → the linear layer before it in the same block."""
SITES = ("qkv", "attention_output", "feed_forward_in", "feed_forward_out", "feed_forward")
"""The layers of a block that can be sparse."""


class SparseConfig(Config):
    """Which layers of the blocks are sparse. All others are dense and shared by all modalities and
    tasks."""

    qkv: RouteConfig = DENSE
    """Query, key and value projections; `skill` makes SkillNet (section 3.2)."""
    attention_output: RouteConfig = DENSE
    """Output projection of attention; `follow` uses the choice of `qkv`."""
    feed_forward_in: RouteConfig = DENSE
    """First linear layer of the feed-forward."""
    feed_forward_out: RouteConfig = DENSE
    """Second linear layer of the feed-forward; `follow` uses the choice of `feed_forward_in`."""
    linears: RouteConfig = DENSE
    """All four linear layers, as in Uni-Perceiver-MoE: `qkv` and `feed_forward_in` have this route,
    the other two follow."""
    feed_forward: RouteConfig = DENSE
    """Whole feed-forwards, mixed after their nonlinearity; `token` makes the mixture-of-experts
    baseline (SkillNet section 5.1)."""
    every: Positive = 1
    """Every so many layers are sparse, beginning with the first; the others are dense
    (Uni-Perceiver-MoE-B and -L: 2)."""

    @model_validator(mode="after")
    def _consistent(self) -> SparseConfig:
        faults = list(self._faults())
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        sparse = [site for site in ("linears", *SITES) if getattr(self, site).sparse]
        for site in sparse:
            if getattr(self, site).follows and site not in LEADERS:
                yield f"{site} has nothing before it to follow; name the route itself"
        for site in sparse:
            if "linears" in sparse and site not in ("linears", "feed_forward"):
                yield (
                    f"linears sets {site} too; give one of them (in a recipe with a base,"
                    f" `{site}: null` takes it away)"
                )
        inside = [site for site in sparse if site == "linears" or site.startswith("feed_forward_")]
        if "feed_forward" in sparse and inside:
            yield (
                f"feed_forward mixes whole feed-forwards, {inside[0]} the layers inside them; give"
                " one of them"
            )

    def at(self, layer: int) -> dict[str, RouteConfig]:
        """The route of each of `SITES` in a layer, counted from 0. What follows a dense layer is
        dense."""
        if layer % self.every:
            return dict.fromkeys(SITES, DENSE)
        routes = {site: getattr(self, site) for site in SITES}
        if self.linears.sparse:
            routes |= dict.fromkeys(LEADERS.values(), self.linears)
            routes |= dict.fromkeys(LEADERS, FOLLOW)
        for site, leader in LEADERS.items():
            if routes[site].follows and not routes[leader].sparse:
                routes[site] = DENSE
        return routes


Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "tanh"]
Norm = Literal["layer", "rms", "zero_centered_rms"]
Bias = Literal["qkv", "query_value", "attention_output", "feed_forward", "norm"]


class Architecture(Variant):
    """Options of all encoders and decoders."""

    discriminator = "name"
    packable: ClassVar[bool] = True
    """Whether samples may share rows: none sees the others."""

    name: str
    """Name of the architecture."""
    layers: Positive = 12
    """Number of layers."""
    dropout: Share = 0.1
    """Dropout probability of the embeddings and of each layer's outputs."""
    norm: Norm = "layer"
    """Kind of normalisation. `layer`: mean 0 and variance 1 (BERT). `rms`: root mean square 1, with
    neither mean nor bias (T5, LLaMA). `zero_centered_rms`: the same with the weight 1 + w, so that
    w starts at 0 (Gemma). An architecture without normalisation has it in the embedding alone."""
    norm_epsilon: PositiveFloat = 1e-12
    """Added to the variance in normalisation."""
    biases: list[Bias] = ["qkv", "attention_output", "feed_forward", "norm"]
    """Which layers have a bias. `query_value` in place of `qkv`: only queries and values have one
    (BEiT), which the experts share. Without attention, `norm` alone has a meaning."""

    def check(self, width: int) -> Iterator[str]:
        """What does not fit vectors of this width."""
        yield from ()


class TransformerConfig(Architecture):
    """Transformer (arXiv 1706.03762): blocks of self-attention and feed-forward.

    As a decoder, each block also attends to the output of the encoder.
    """

    name: Literal["transformer"] = "transformer"
    """Selects the Transformer, which is the default."""
    distinct_layers: Positive | None = None
    """Number of blocks with parameters of their own, each used for a run of layers (ALBERT: 1).
    Default: `layers`."""
    heads: Positive = 12
    """Number of attention heads. The model's width must be a multiple of it unless `head_size` is
    given."""
    key_value_heads: Positive | None = None
    """Number of heads of keys and values, each shared by equally many query heads (grouped-query
    attention, arXiv 2305.13245). Default: `heads`."""
    head_size: Positive | None = None
    """Width of a head. Default: the model's width divided by `heads`."""
    scale_attention: bool = True
    """Whether attention scores are divided by √head_size (T5: no)."""
    scale_size: PositiveFloat | None = None
    """Number whose square root attention scores are divided by (`query_pre_attn_scalar` of Gemma).
    Default: `head_size`."""
    attention_softcap: PositiveFloat | None = None
    """Soft-capping: a score s becomes c · tanh(s / c) for this c (Gemma 2, arXiv 2408.00118 section
    2). PyTorch's fused kernels cannot do this, so attention takes more memory. Default: none."""
    position: PositionConfig = NoPositionConfig()
    """How attention uses positions."""
    window: Positive | None = None
    """Sliding-window attention: number of positions that a position sees up to and including
    itself, and as many after it where attention is bidirectional (Longformer, arXiv 2004.05150;
    Mistral). Default: all."""
    global_layers: list[Whole] = []
    """Numbers of the layers, from 0, whose attention has no `window` and has the positions
    `global_position` (Gemma 2 and 3, ModernBERT; SmolLM3: layers without positions)."""
    global_position: Annotated[NoPositionConfig | RotaryConfig, Tagged()] | None = None
    """How the attention of `global_layers` uses positions. Default: as `position`."""
    qk_norm: bool = False
    """Whether the queries and keys of each head go through an RMS norm (Qwen 3)."""
    residual_attention: bool = False
    """Whether each layer adds its attention scores to those of the layer before it (RealFormer,
    arXiv 2012.11747)."""
    feed_forward: Positive = 3072
    """Width of the feed-forward's hidden layer."""
    activation: Activation = "gelu"
    """Nonlinearity of the feed-forward."""
    gated: bool = False
    """Gated linear units: the hidden layer is multiplied by a second one, which goes through the
    nonlinearity (arXiv 2002.05202)."""
    norm_position: Literal["pre", "post", "sandwich"] = "post"
    """`pre`: normalisation before attention and before the feed-forward, and once more after the
    last layer. `post`: after each residual sum (BERT). `sandwich`: as `pre`, and the outputs of
    attention and feed-forward are normalised too (CogView, arXiv 2105.13290; Gemma 2)."""
    first_norm: bool = True
    """With `norm_position: pre`: whether the attention of the first layer begins with a
    normalisation (ModernBERT: no, because the embeddings are normalised)."""
    last_norm: bool = True
    """With `norm_position: pre`: whether the last layer is followed by a normalisation. A target
    may have one instead (BEiT, VideoMAE)."""
    layer_scale: PositiveFloat | None = None
    """LayerScale: initial value of a learned vector that multiplies the outputs of attention and
    feed-forward (CaiT, arXiv 2103.17239). Default: none."""
    attention_dropout: Share = 0.1
    """Dropout probability of the attention weights."""
    activation_dropout: Share = 0.0
    """Dropout probability after the nonlinearity of the feed-forward (BART, wav2vec 2.0)."""
    drop_path: Share = 0.0
    """Stochastic depth: probability with which training skips the attention or the feed-forward of
    the last layer for a sample; it rises linearly from 0 at the first layer (arXiv 1603.09382)."""
    prompts: Whole = 0
    """Number of learned vectors before the keys and values of each layer; set by the recipe's
    `tuning`."""
    sparse: SparseConfig = SparseConfig()
    """Which layers have experts, and how these are chosen."""

    # what other architectures have in addition, for whoever reads a configuration of any kind
    input_size: ClassVar[None] = None
    direction: ClassVar[Literal["forward"]] = "forward"

    @model_validator(mode="after")
    def _consistent(self) -> TransformerConfig:
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
        if beyond := [layer for layer in self.global_layers if layer >= self.layers]:
            raise ValueError(
                f"global_layers has {beyond[0]}, but {self.layers} layers are numbered from 0 to"
                f" {self.layers - 1}"
            )
        if self.global_position and not self.global_layers:
            raise ValueError("global_position is that of global_layers, and there are none")
        if isinstance(self.position, DisentangledConfig):
            routes = self.sparse.at(0)
            if routes["qkv"].sparse or self.heads != (self.key_value_heads or self.heads):
                raise ValueError(
                    "position disentangled projects distances as queries and keys, so it needs a"
                    " dense qkv and as many key_value_heads as heads"
                )
        return self

    def size(self, width: int) -> int:
        """The width of a head."""
        return self.head_size or width // self.heads

    def check(self, width: int) -> Iterator[str]:
        """The heads share the width."""
        if not self.head_size and width % self.heads:
            yield f"width {width} is not a multiple of {self.heads} heads"
        elif isinstance(self.position, T5BiasConfig) and self.position.gated and width % self.heads:
            yield f"a gated t5_bias needs a width that is a multiple of the {self.heads} heads"
        else:
            for position in filter(None, (self.position, self.global_position)):
                yield from position.check(self.size(width))


class SequentialConfig(Architecture):
    """Options of the architectures that read a text token by token, in its order."""

    input_size: Positive | None = None
    """Width of the embeddings, which are the input of the first layer. Default: the model's
    width."""

    packable = False

    # what the Transformer has in addition, for whoever reads a configuration of either kind
    heads: ClassVar[int] = 1
    norm_position: ClassVar[Literal["post"]] = "post"
    position: ClassVar[NoPositionConfig] = NoPositionConfig()
    prompts: ClassVar[int] = 0
    sparse: ClassVar[SparseConfig] = SparseConfig()


class RecurrentConfig(SequentialConfig):
    """Options of recurrent networks.

    A recurrent decoder attends to the output of the encoder with its states (Luong et al., arXiv
    1508.04025).
    """

    direction: Literal["forward", "bidirectional", "separate"] = "forward"
    """In which direction a text is read. `bidirectional`: each layer reads it in both directions,
    and each has half of the width. `separate`: two stacks read it, one in each direction, and are
    concatenated after the last layer; neither sees what it has to predict (ELMo, arXiv
    1802.05365)."""

    def check(self, width: int) -> Iterator[str]:
        """Two directions share the width."""
        if self.direction != "forward" and width % 2:
            yield f"width {width} is odd, and two directions share it"

    def state_size(self, width: int) -> int:
        """Width of the outputs of one direction."""
        return width if self.direction == "forward" else width // 2


class RNNConfig(RecurrentConfig):
    """Elman network: recurrent layers with tanh (`torch.nn.RNN`)."""

    name: Literal["rnn"] = "rnn"
    """Selects the Elman network."""


class LSTMConfig(RecurrentConfig):
    """Long short-term memory (`torch.nn.LSTM`)."""

    name: Literal["lstm"] = "lstm"
    """Selects the LSTM."""
    cell_size: Positive | None = None
    """Width of the cell, which is projected to the width of the output (ELMo: 4,096). Default: the
    two are the same, without a projection."""

    def check(self, width: int) -> Iterator[str]:
        """A projection makes the cell's vector smaller."""
        yield from super().check(width)
        size = self.state_size(width)
        if self.cell_size and self.cell_size <= size:
            yield (
                f"cell_size {self.cell_size} is projected to {size}, which is not smaller; leave it"
                " out"
            )


class GRUConfig(RecurrentConfig):
    """Gated recurrent units (`torch.nn.GRU`)."""

    name: Literal["gru"] = "gru"
    """Selects the gated recurrent units."""


class GatedCNNConfig(SequentialConfig):
    """Gated convolutional network, which sees only the tokens before (arXiv 1612.08083)."""

    name: Literal["gated_cnn"] = "gated_cnn"
    """Selects the gated convolutional network."""
    kernel_size: Positive = 4
    """Number of tokens that a convolution sees, its own the last."""
    block_layers: Positive = 2
    """Number of layers in a residual block; the first layer stands before the blocks."""

    direction: ClassVar[Literal["forward"]] = "forward"


EncoderConfig = Annotated[
    TransformerConfig | RNNConfig | LSTMConfig | GRUConfig | GatedCNNConfig, Tagged()
]


def _forward(decoder: TransformerConfig | RecurrentConfig) -> TransformerConfig | RecurrentConfig:
    if decoder.direction != "forward":
        raise ValueError(
            "a decoder writes word by word; it is a transformer, rnn, lstm or gru with direction"
            " 'forward'"
        )
    return decoder


DecoderConfig = Annotated[
    TransformerConfig | RNNConfig | LSTMConfig | GRUConfig, Tagged(), AfterValidator(_forward)
]

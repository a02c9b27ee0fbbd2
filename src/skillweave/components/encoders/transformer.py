"""The Transformer encoder, dense or sparse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.config.model import EncoderConfig, RouteConfig
from skillweave.layers.attention import SelfAttention
from skillweave.layers.block import Block, BlockWeights
from skillweave.layers.feed_forward import ACTIVATIONS, FeedForward
from skillweave.layers.sparse import (
    ConditionalFeedForward,
    ConditionalLinear,
    DenseRoute,
    Known,
    Linear,
    Route,
    RouteStatistics,
    SparseFeedForward,
    StaticRoute,
    TokenRoute,
    build_route,
)
from skillweave.layers.tokens import TokenMap

PATHS = {
    "qkv": "attention.qkv",
    "attention_output": "attention.output",
    "feed_forward_in": "feed_forward.experts.shared.inner",
    "feed_forward_out": "feed_forward.experts.shared.outer",
    "feed_forward": "feed_forward",
}
"""Place where a layer can be sparse → its module's path in a block."""
EncoderWeights = tuple[BlockWeights, ...]
"""What the static routes of every layer decided for a condition: plain tensors, which belong to whoever asked for them."""
Resolved = Mapping[Condition, EncoderWeights]


class Choice(NamedTuple):
    """A choice among experts: in which layer, from 0, at which of `PATHS`, and who makes it."""

    layer: int
    place: str
    route: Route


class TransformerEncoder(nn.Module):
    """Blocks of self-attention and feed-forward, run in two phases: `resolve` the conditions, then run dense."""

    def __init__(self, config: EncoderConfig, width: int, known: Known) -> None:
        super().__init__()
        blocks = nn.ModuleList(_block(config, layer, width, known) for layer in range(config.layers))
        self.blocks = cast(Sequence[Block], blocks)
        last = nn.LayerNorm(width, config.norm_epsilon) if config.norm_position == "pre" else nn.Identity()
        self.last_norm = last

    def resolve(
        self,
        conditions: Iterable[Condition],
        generator: torch.Generator | None = None,
        tokens: Mapping[Condition, int] | None = None,
    ) -> Resolved:
        """The gates and merged weights of every layer, once for each distinct condition.

        `generator`: of the gates' noise in training. `tokens`: how many of each condition there will be; for few, experts
        stay apart. Absent: any number, and all are merged.
        """
        counts = tokens or {}
        distinct = dict.fromkeys(conditions)
        return {c: tuple(block.resolve(c, generator, counts.get(c)) for block in self.blocks) for c in distinct}

    def forward(
        self, x_TD: Tensor, tokens: TokenMap, weights: Sequence[EncoderWeights], generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """Flat tokens [T, D] → [T, D], with the statistics of each token gate, in the order of the layers.

        `weights`: what `resolve` gave for the condition of each span.
        """
        statistics: list[RouteStatistics] = []
        for i, block in enumerate(self.blocks):
            x_TD, own = block(x_TD, tokens, [span[i] for span in weights], generator)
            statistics += own
        return self.last_norm(x_TD), statistics

    def choices(self) -> Iterator[Choice]:
        """Where experts are chosen, in the order in which it happens; a bank that follows another makes no choice of its own."""
        banks = dict(self.banks())
        for layer in range(len(self.blocks)):
            for place, path in PATHS.items():
                bank = banks.get(f"blocks.{layer}.{path}")
                if bank is not None and not isinstance(bank.route, DenseRoute) and not getattr(bank, "follows", False):
                    yield Choice(layer, place, bank.route)

    def inactive(self, conditions: Iterable[Condition]) -> set[str]:
        """Names of the parameters that none of the conditions uses, without noise."""
        wanted = list(conditions)
        names: set[str] = set()
        for path, module in self.banks():
            if not isinstance(module.route, StaticRoute):
                continue
            active = {name for condition in wanted for name in module.route.gates(condition)}
            for name, _ in module.named_parameters():
                kind, expert, *_ = name.split(".")
                if kind == "experts" and expert not in active:
                    names.add(f"{path}.{name}")
            names |= {f"{path}.route.{name}" for name in module.route.idle(wanted)}
        return names

    def idle_per_token(self) -> int:
        """Parameters of token-routed experts that a single token leaves unused."""
        idle = 0
        for _, module in self.banks():
            if isinstance(module.route, TokenRoute):
                experts = len(module.route.experts)
                banked = sum(p.numel() for name, p in module.named_parameters() if name.startswith("experts."))
                idle += banked // experts * (experts - module.route.active)
        return idle

    def banks(self) -> Iterator[tuple[str, ConditionalLinear | ConditionalFeedForward]]:
        """Every bank of experts, by its path in the encoder."""
        for path, module in self.named_modules():
            if isinstance(module, ConditionalLinear | ConditionalFeedForward):
                yield path, module


def _block(config: EncoderConfig, layer: int, width: int, known: Known) -> Block:
    routes = config.sparse.at(layer)
    qkv = ConditionalLinear(width, 3 * width, build_route(routes["qkv"], width, known))
    output = _linear(routes["attention_output"], width, width, known, qkv)
    hidden, inside = config.feed_forward, (routes["feed_forward_in"], routes["feed_forward_out"])
    if all(route.route == "dense" for route in inside):
        expert = partial(FeedForward, width, hidden, config.activation)
        feed_forward = ConditionalFeedForward(expert, build_route(routes["feed_forward"], width, known))
    else:
        inner = _linear(inside[0], width, hidden, known)
        outer = _linear(inside[1], hidden, width, known, inner)
        feed_forward = SparseFeedForward(inner, outer, ACTIVATIONS[config.activation])
    norms = (nn.LayerNorm(width, config.norm_epsilon), nn.LayerNorm(width, config.norm_epsilon))
    prompts = torch.randn(config.prompts, width) if config.prompts else None  # as large as what is normalised
    attention = SelfAttention(config.heads, qkv, output, config.attention_dropout, prompts)
    return Block(attention, feed_forward, norms, config.norm_position == "pre", config.dropout)


def _linear(route: RouteConfig, in_features: int, out_features: int, known: Known, before: Linear | None = None) -> Linear:
    """A linear layer as its place asks for; `before`: the one that it may follow."""
    if route.route == "dense":
        return nn.Linear(in_features, out_features)
    if route.route == "follow" and isinstance(before, ConditionalLinear):
        return ConditionalLinear(in_features, out_features, before.route, follows=True)
    return ConditionalLinear(in_features, out_features, build_route(route, in_features, known))

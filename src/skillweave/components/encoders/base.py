"""What all encoders and decoders have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.config import ConfigError
from skillweave.layers.attention import Memory
from skillweave.layers.block import Block, BlockWeights, Unresolved
from skillweave.layers.cache import LayerCache
from skillweave.layers.recompute import Recompute
from skillweave.layers.sparse import (
    ConditionalFeedForward,
    ConditionalLinear,
    Route,
    RouteStatistics,
)
from skillweave.layers.tokens import TokenMap

SITE_PATHS = {
    "qkv": "attention.qkv",
    "attention_output": "attention.output",
    "feed_forward_in": "feed_forward.experts.shared.inner",
    "feed_forward_out": "feed_forward.experts.shared.outer",
    "feed_forward": "feed_forward",
}
"""Site (see `SITES`) → path of its module in a block."""
Bank = ConditionalLinear | ConditionalFeedForward
EncoderWeights = tuple[BlockWeights | Unresolved, ...]
"""What the static routes of every block decided for a condition: plain tensors, which belong to the
caller."""
Resolved = Mapping[Condition, EncoderWeights]
"""Of the blocks of all parts that run on a condition, in the order of the parts."""
LayerStatistics = dict[tuple[int, str], RouteStatistics]
"""(Layer, site) → statistics, where the route looks at the data."""


class Choice(NamedTuple):
    """A choice among experts: the path of its encoder or decoder in the model (`encoder`,
    `decoder`, `stream_encoders.image`), the layer, from 0, and the site (one of `SITES`)."""

    part: str
    layer: int
    site: str


class Encoder(nn.Module):
    """Runs in two phases: `resolve` the conditions, then run dense.

    `blocks`: those that may have experts; other kinds of encoders have none. `order`: for each
    layer, the block that it uses. `recompute`: which layers of a Transformer compute their
    activations again in the backward pass of training; None for none.
    """

    blocks: Sequence[Block]
    order: Sequence[int] = ()
    recompute: Recompute | None = None

    def resolve(
        self,
        conditions: Iterable[Condition],
        generator: torch.Generator | None = None,
        tokens: Mapping[Condition, int] | None = None,
    ) -> Resolved:
        """The gates and merged weights of every block, once for each distinct condition.

        `generator`: of the gates' noise in training. `tokens`: the number of tokens of each
        condition; for few tokens, experts are not merged. Without it all are merged.
        """
        counts = tokens or {}
        return {
            c: tuple(block.resolve(c, generator, counts.get(c)) for block in self.blocks)
            for c in dict.fromkeys(conditions)
        }

    @abstractmethod
    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[EncoderWeights],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, LayerStatistics]:
        """Flat tokens [T, D] → [T, D], and the statistics of routes that look at the data.

        `weights`: what `resolve` gave for the condition of each span. `memory`: what a decoder
        attends to.
        """

    def new_caches(self) -> list[LayerCache]:
        """A cache for each layer, for text that is written token by token. Raises ConfigError for
        an encoder that keeps nothing of earlier tokens."""
        if not self.order:
            raise ConfigError(f"a {type(self).__name__} does not write text token by token")
        return [LayerCache() for _ in self.order]

    def choices(self) -> Iterator[tuple[int, str, Route]]:
        """Layer, site and route of every choice among experts, in the order in which they are made.
        A bank that follows another one makes no choice."""
        banks = dict(self.banks())
        for layer, block in enumerate(self.order):
            for site, path in SITE_PATHS.items():
                bank = banks.get(f"blocks.{block}.{path}")
                if bank is not None and bank.route.chooses and not bank.follows:
                    yield layer, site, bank.route

    def inactive(self, conditions: Iterable[Condition]) -> set[str]:
        """Names of the parameters that none of the conditions uses, without noise."""
        wanted = list(conditions)
        names: set[str] = set()
        for path, bank in self.banks():
            gates = [bank.route.gates(condition) for condition in wanted]
            active = {name for one in gates if one is not None for name in one}
            for name, _ in bank.named_parameters():
                kind, expert, *_ = name.split(".")
                if kind == "experts" and not bank.route.looks_at_data and expert not in active:
                    names.add(f"{path}.{name}")
            names |= {f"{path}.route.{name}" for name in bank.route.unused(wanted)}
        return names

    def idle_per_token(self) -> int:
        """Number of parameters of experts that a single token does not use, where routes look at
        the data."""
        idle = 0
        for _, bank in self.banks():
            if bank.route.looks_at_data:
                experts = len(bank.route.experts)
                parameters = dict(bank.named_parameters()).items()
                banked = sum(p.numel() for name, p in parameters if name.startswith("experts."))
                idle += banked // experts * (experts - bank.route.active)
        return idle

    def banks(self) -> Iterator[tuple[str, Bank]]:
        """Every bank of experts, by its path in the encoder."""
        for path, module in self.named_modules():
            if isinstance(module, Bank):
                yield path, module


class SequentialEncoder(Encoder):
    """An encoder without experts, which reads the tokens of each sample in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = ()

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[EncoderWeights],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, LayerStatistics]:
        """See `Encoder`."""
        return self.read(x_TD, tokens, memory), {}

    @abstractmethod
    def read(self, x_TD: Tensor, tokens: TokenMap, memory: Memory | None) -> Tensor:
        """Flat tokens [T, D] → [T, D]. `memory`: what a decoder attends to."""

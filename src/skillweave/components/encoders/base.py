"""What all encoders have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.attention import Memory
from skillweave.layers.block import Block, BlockWeights
from skillweave.layers.sparse import (
    ConditionalFeedForward,
    ConditionalLinear,
    DenseRoute,
    Route,
    RouteStatistics,
    StaticRoute,
    TokenRoute,
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
"""What the static routes of every layer decided for a condition: plain tensors, which belong to
whoever asked for them."""
Resolved = Mapping[Condition, EncoderWeights]


class Choice(NamedTuple):
    """A choice among experts: in which layer, from 0, at which of `PATHS`, and who makes it."""

    layer: int
    place: str
    route: Route


class Encoder(nn.Module):
    """Run in two phases: `resolve` the conditions, then run dense.

    `blocks`: those that may hold experts; an encoder of another kind has none.
    """

    blocks: Sequence[Block]

    def resolve(
        self,
        conditions: Iterable[Condition],
        generator: torch.Generator | None = None,
        tokens: Mapping[Condition, int] | None = None,
    ) -> Resolved:
        """The gates and merged weights of every block, once for each distinct condition.

        `generator`: of the gates' noise in training. `tokens`: how many of each condition there
        will be; for few, experts stay apart. Absent: any number, and all are merged.
        """
        counts = tokens or {}
        distinct = dict.fromkeys(conditions)
        return {
            c: tuple(block.resolve(c, generator, counts.get(c)) for block in self.blocks)
            for c in distinct
        }

    @abstractmethod
    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[EncoderWeights],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """Flat tokens [T, D] → [T, D], with the statistics of each token gate, in the order of the
        layers.

        `weights`: what `resolve` gave for the condition of each span. `memory`: what a decoder
        looks at.
        """

    def choices(self) -> Iterator[Choice]:
        """Where experts are chosen, in the order in which it happens; a bank that follows another
        makes no choice of its own."""
        banks = dict(self.banks())
        for layer in range(len(self.blocks)):
            for place, path in PATHS.items():
                bank = banks.get(f"blocks.{layer}.{path}")
                if (
                    bank is not None
                    and not isinstance(bank.route, DenseRoute)
                    and not getattr(bank, "follows", False)
                ):
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
                banked = sum(
                    p.numel()
                    for name, p in module.named_parameters()
                    if name.startswith("experts.")
                )
                idle += banked // experts * (experts - module.route.active)
        return idle

    def banks(self) -> Iterator[tuple[str, ConditionalLinear | ConditionalFeedForward]]:
        """Every bank of experts, by its path in the encoder."""
        for path, module in self.named_modules():
            if isinstance(module, ConditionalLinear | ConditionalFeedForward):
                yield path, module

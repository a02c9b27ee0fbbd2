"""Expert parallelism: experts that each token chooses are divided among the processes, and the
tokens travel. Everything else is copied."""

from __future__ import annotations

from collections.abc import Collection

import torch.distributed as dist
from torch import Tensor, nn

from skillweave.config import ConfigError
from skillweave.layers.sparse import ConditionalFeedForward
from skillweave.layers.sparse.exchange import TokenExchange
from skillweave.training.reduction import GradientReducer
from skillweave.training.replica import Replica
from skillweave.training.strategy import (
    Strategy,
    clip_to,
    norm_of_parts,
    trained_parameters,
)


class ExpertParallel(Strategy):
    """Every process has an equal share of the feed-forward experts of each layer whose route looks
    at the data, and tokens go to the process of their expert and back.

    Raises ConfigError for a model without such experts, and for a number of them that the processes
    cannot share.
    """

    in_parts = True

    def __init__(self, model: nn.Module, replica: Replica) -> None:
        super().__init__(model, replica)
        world, before = dist.get_world_size(), {name for name, _ in model.named_parameters()}
        banks = {path: bank for path, bank in model.named_modules() if chosen_by_token(bank)}
        if not banks:
            raise ConfigError(
                "training.parallel: the model has no feed-forward experts that each token chooses"
                " (model.encoder.sparse.feed_forward.route: token), so there is nothing to divide;"
                " use kind: replicated or sharded"
            )
        owned: set[str] = set()
        for path, bank in banks.items():
            names = list(bank.experts)
            if len(names) % world:
                raise ConfigError(
                    f"training.parallel: {world} processes cannot share the {len(names)} experts of"
                    f" {path} equally; change one of the numbers"
                )
            bank.exchange = TokenExchange()
            own = bank.exchange.own(len(names))
            for number, name in enumerate(names):
                expert = bank.get_submodule(f"experts.{name}")
                if number in own:
                    prefix = f"{path}.experts.{name}."
                    owned |= {prefix + inner for inner, _ in expert.named_parameters()}
                else:
                    drop_parameters(expert)
        left = dict(model.named_parameters())
        self.elsewhere = before - left.keys()
        trained = trained_parameters(model)
        self.own = {name: p for name, p in trained.items() if name in owned}
        self.common = {name: p for name, p in trained.items() if name not in owned}
        self.reducer = GradientReducer(self.common, dist.new_group())

    def begin(self, active: Collection[str]) -> None:
        """See `Strategy`."""
        self.reducer.begin(self.common.keys() & set(active))

    def micro_batch(self, last: bool) -> None:
        """See `Strategy`."""
        # sending would be in another order than the exchange of tokens on other processes
        self.reducer.overlap = False

    def finish(self) -> None:
        """See `Strategy`. An expert has the sum of the gradients of all processes' tokens."""
        self.reducer.finish()
        for parameter in self.own.values():
            if parameter.grad is not None:
                parameter.grad.div_(dist.get_world_size())

    def clip(self, largest: float | None) -> Tensor:
        """See `Strategy`."""
        own = [p.grad for p in self.own.values() if p.grad is not None]
        common = [p.grad for p in self.common.values() if p.grad is not None]
        counted = [*own, *(common if dist.get_rank() == 0 else ())]
        norm = norm_of_parts(counted, next(self.model.parameters()).device)
        if largest is not None:
            clip_to([*own, *common], largest, norm)
        return norm


def chosen_by_token(module: nn.Module) -> bool:
    """Whether a module is a bank of feed-forwards among which each token chooses."""
    return isinstance(module, ConditionalFeedForward) and module.route.looks_at_data


def drop_parameters(module: nn.Module) -> None:
    """Remove the parameters of a module, which another process has."""
    for inner in module.modules():
        for name, _ in list(inner.named_parameters(recurse=False)):
            inner.register_parameter(name, None)

"""Activation checkpointing: layers that keep their input alone and compute the rest again in the
backward pass (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}
"""Operations whose results selective checkpointing keeps, since they take most of the time."""


@dataclass(frozen=True)
class Recompute:
    """Which layers compute their activations again: every `every`-th one. `selective`: they keep
    the results of matrix products and of attention."""

    every: int = 1
    selective: bool = False

    def applies(self, layer: int) -> bool:
        """Whether to a layer, counted from 0."""
        return layer % self.every == 0

    def run(
        self, work: Callable[[torch.Generator | None], Any], generator: torch.Generator | None
    ) -> Any:
        """`work(generator)`, which draws the same numbers from it when it runs again."""
        if generator is None:
            return self._checkpoint(lambda: work(None))
        begin, ends = generator.get_state(), []

        def repeatable() -> Any:
            own = torch.Generator(generator.device)
            own.set_state(begin)
            found = work(own)
            ends.append(own.get_state())
            return found

        found = self._checkpoint(repeatable)
        generator.set_state(ends[0])
        return found

    def _checkpoint(self, work: Callable[[], Any]) -> Any:
        contexts = _selective if self.selective else _nothing
        return checkpoint(work, use_reentrant=False, context_fn=contexts)


def _nothing() -> tuple[Any, Any]:
    return nullcontext(), nullcontext()


def _selective() -> tuple[Any, Any]:
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = operation in _KEPT
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

"""Targets that predict tokens of a vocabulary, and their loss without all logits at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.batch import IGNORE
from skillweave.components.targets.base import (
    Encoded,
    Target,
    TargetOutput,
    labels_at,
    mean_cross_entropy,
)
from skillweave.layers.linear import linear
from skillweave.layers.precision import at_least_float32

CHUNK_BYTES = 2**27
"""Most bytes of the float32 logits that training computes at once."""


class VocabularyTarget(Target):
    """Predicts tokens of a vocabulary at the kept positions of a pass, the last one by default.

    Shape letters: M kept positions, D width of the vectors, V tokens of the vocabulary.
    """

    labels = ("label_ids",)
    per_token = True
    smoothing: float = 0.0
    """Label smoothing in training."""
    softcap: float | None = None
    """A logit s becomes c · tanh(s / c) for this c."""

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [M, V] at the kept positions. Label `label_ids` [N, L]."""
        x_MD, label_M, positions = self.read(passes, labels)
        logits_MV = self.token_logits(x_MD, output_embeddings)
        loss = mean_cross_entropy(logits_MV, label_M, self.smoothing if self.training else 0.0)
        return TargetOutput(loss, logits_MV, positions)

    def loss_alone(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> Tensor | None:
        """See `Target`. At most `CHUNK_BYTES` of logits exist at a time."""
        weight_VD, bias_V = self.output_layer(output_embeddings)
        rows = max(1, CHUNK_BYTES // (4 * len(weight_VD)))
        if "label_ids" not in labels or len(self.source(passes).hidden_TD) <= rows:
            return super().loss_alone(passes, labels, output_embeddings)
        x_MD, label_M, _ = self.read(passes, labels)
        assert label_M is not None
        smoothing = self.smoothing if self.training else 0.0
        x_MD, weights = self.before_output(x_MD), [weight_VD, *([] if bias_V is None else [bias_V])]
        return chunked_cross_entropy(self.project, x_MD, label_M, weights, rows, smoothing)

    def read(
        self, passes: list[Encoded], labels: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The vectors [M, D] of the kept positions, their labels [M] if there are any, and their
        positions [M, 2]."""
        encoded = self.source(passes)
        kept_M = encoded.kept(self.modalities)
        label_M = labels_at(encoded, labels.get("label_ids"), kept_M)
        return encoded.hidden_TD.index_select(0, kept_M), label_M, encoded.positions(kept_M)

    def source(self, passes: list[Encoded]) -> Encoded:
        """The pass whose tokens are predicted."""
        return passes[-1]

    def before_output(self, x_MD: Tensor) -> Tensor:
        """What the output layer reads of vectors [..., D]."""
        return x_MD

    @abstractmethod
    def output_layer(self, output_embeddings: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight [V, D] and bias [V] of the output layer. Raises ValueError without one."""

    def token_logits(self, x_MD: Tensor, output_embeddings: Tensor | None) -> Tensor:
        """[..., V] of vectors [..., D]. Raises ValueError without an output layer."""
        return self.project(self.before_output(x_MD), *self.output_layer(output_embeddings))

    def project(self, x_MD: Tensor, weight_VD: Tensor, bias_V: Tensor | None = None) -> Tensor:
        """[..., V] the output layer on what it reads."""
        x_MV = linear(x_MD, weight_VD, bias_V)
        return x_MV if self.softcap is None else self.softcap * torch.tanh(x_MV / self.softcap)


def chunked_cross_entropy(
    project: Callable[..., Tensor],
    x_MD: Tensor,
    label_M: Tensor,
    weights: list[Tensor],
    rows: int,
    smoothing: float = 0.0,
) -> Tensor:
    """As `mean_cross_entropy` of project(x, *weights), for `rows` rows of x at a time.

    The gradients are computed with the loss, so no logits are kept or computed twice. The loss has
    no second derivative.
    """

    def summed(x: Tensor, label: Tensor, *leaves: Tensor) -> Tensor:
        logits = at_least_float32(project(x, *leaves))
        return F.cross_entropy(
            logits, label, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum"
        )

    total = _Chunked.apply(summed, rows, label_M, x_MD, *weights)
    return total / (label_M != IGNORE).sum().clamp(min=1)


class _Chunked(torch.autograd.Function):
    """The sum of a function over chunks of rows, whose gradients are computed in the forward
    pass."""

    @staticmethod
    def forward(
        ctx: Any,
        summed: Callable[..., Tensor],
        rows: int,
        label_M: Tensor,
        x_MD: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        needed = ctx.needs_input_grad[3:]
        leaves = [w.detach().requires_grad_(n) for w, n in zip(weights, needed[1:], strict=True)]
        gradients = [
            torch.zeros_like(x) if n else None
            for x, n in zip((x_MD, *weights), needed, strict=True)
        ]
        total = x_MD.new_zeros((), dtype=torch.promote_types(x_MD.dtype, torch.float32))
        for start in range(0, len(x_MD), rows):
            part = slice(start, start + rows)
            x = x_MD[part].detach().requires_grad_(needed[0])
            with torch.enable_grad():
                loss = summed(x, label_M[part], *leaves)
            total += loss.detach()
            wanted = [tensor for tensor in (x, *leaves) if tensor.requires_grad]
            found = iter(torch.autograd.grad(loss, wanted) if wanted else ())
            for i, gradient in enumerate(gradients):
                if gradient is not None:
                    (gradient[part] if i == 0 else gradient).add_(next(found))
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        scaled = [None if g is None else g * grad.to(g.dtype) for g in ctx.saved_tensors]
        return None, None, None, *scaled

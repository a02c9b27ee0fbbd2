"""y_t = Σ_e G_te (W_e x_t + b_e): a mixture of linear layers whose gates depend on the token, as
one differentiable operator.

Assignments are sorted by expert, so each expert is one matrix product: `grouped_mm` where that is
fast (bf16 on CUDA), a loop elsewhere. The sizes depend on the data; the operator hides them from
`torch.compile`. It stores only its inputs for the backward pass.

Shape letters: T tokens, k experts of a token, P = T · k assignments, I and O the layer's widths, E
experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.layers.sparse.dispatch import Dispatch, combine, gather, split


def mixture_linear(
    x_TI: Tensor, dispatch: Dispatch, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """[T, I] → [T, O]. `weights`: E of [O, I]. `biases`: E of [O], or none. Autocast applies as to
    F.linear."""
    dtype = x_TI.dtype
    if torch.is_autocast_enabled(x_TI.device.type):
        dtype = torch.get_autocast_dtype(x_TI.device.type)
    cast = [[x.to(dtype) for x in group] for group in ([x_TI, dispatch.weights], weights, biases)]
    return _mixture(*cast[0], dispatch.order, dispatch.slots, dispatch.ends, *cast[1:])


def grouped_linear(
    x_PI: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], ends_E: Tensor
) -> Tensor:
    """Each expert's linear layer on its own rows: [P, I] → [P, O]."""
    if _grouped_is_fast(x_PI, weights[0]):
        return grouped_product(x_PI, weights, biases, ends_E)
    y_PO = x_PI.new_empty(len(x_PI), len(weights[0]))
    sizes = split(ends_E)
    # written in place: nothing to join
    for e, (x, y) in enumerate(zip(x_PI.split(sizes), y_PO.split(sizes), strict=True)):
        if biases:
            torch.addmm(biases[e], x, weights[e].t(), out=y)
        else:
            torch.mm(x, weights[e].t(), out=y)
    return y_PO


def grouped_product(
    x_PI: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], ends_E: Tensor
) -> Tensor:
    """As `grouped_linear`, without the sizes on the host."""
    y_PO = F.grouped_mm(x_PI, torch.stack(list(weights)).transpose(1, 2), offs=ends_E)
    if not biases:
        return y_PO
    rows_P = torch.arange(len(x_PI), device=x_PI.device, dtype=ends_E.dtype)
    return y_PO + torch.stack(list(biases)).index_select(
        0, torch.searchsorted(ends_E, rows_P, right=True)
    )


def _grouped_is_fast(x_PI: Tensor, weight_OI: Tensor) -> bool:
    """The kernel needs bf16 with rows that are multiples of 16 bytes."""
    return (
        x_PI.is_cuda
        and x_PI.dtype == torch.bfloat16
        and not any(size % 8 for size in weight_OI.shape)
    )


@torch.library.custom_op("skillweave::mixture_linear", mutates_args=())
def _mixture(
    x_TI: Tensor,
    gates_Tk: Tensor,
    order_P: Tensor,
    slots_Tk: Tensor,
    ends_E: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> Tensor:
    y_PO = grouped_linear(gather(x_TI, order_P, gates_Tk.shape[1]), weights, biases, ends_E)
    return combine(y_PO, slots_Tk, gates_Tk)


@_mixture.register_fake
def _(
    x_TI: Tensor,
    gates_Tk: Tensor,
    order_P: Tensor,
    slots_Tk: Tensor,
    ends_E: Tensor,
    weights: Any,
    biases: Any,
) -> Tensor:
    return x_TI.new_empty(x_TI.shape[0], weights[0].shape[0])


@torch.library.custom_op("skillweave::mixture_linear_backward", mutates_args=())
def _gradients(
    grad_TO: Tensor,
    x_TI: Tensor,
    gates_Tk: Tensor,
    order_P: Tensor,
    slots_Tk: Tensor,
    ends_E: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x [T, I], the gates [T, k], all weights [E, O, I] and all biases [E, O] (or [E,
    0])."""
    active = gates_Tk.shape[1]
    x_PI, grad_PO = gather(x_TI, order_P, active), gather(grad_TO, order_P, active)
    gates_P1 = gates_Tk.flatten().index_select(0, order_P).unsqueeze(1)
    # Wᵀ grad gives the gradient of x, and the gate's too: y · grad = x · Wᵀ grad + b · grad.
    back_PI = grouped_linear(grad_PO, [weight.t() for weight in weights], [], ends_E)
    gate_P = torch.linalg.vecdot(back_PI, x_PI)
    scaled_PI = x_PI * gates_P1
    # the product of no rows is zero
    weight_EOI = grad_TO.new_empty(len(weights), *weights[0].shape)
    bias_EO = grad_TO.new_empty(len(weights), weights[0].shape[0] if biases else 0)
    start = 0
    for e, end in enumerate(ends_E.tolist()):
        rows = slice(start, end)
        torch.mm(grad_PO[rows].t(), scaled_PI[rows], out=weight_EOI[e])
        if biases:
            torch.mv(grad_PO[rows].t(), gates_P1[rows, 0], out=bias_EO[e])
            gate_P[rows] += grad_PO[rows] @ biases[e]
        start = end
    return combine(back_PI, slots_Tk, gates_Tk), gate_P.take(slots_Tk), weight_EOI, bias_EO


@_gradients.register_fake
def _(
    grad_TO: Tensor,
    x_TI: Tensor,
    gates_Tk: Tensor,
    order_P: Tensor,
    slots_Tk: Tensor,
    ends_E: Tensor,
    weights: Any,
    biases: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weight_EOI = grad_TO.new_empty(len(weights), *weights[0].shape)
    bias_EO = grad_TO.new_empty(len(weights), weights[0].shape[0] if biases else 0)
    return torch.empty_like(x_TI), torch.empty_like(gates_Tk), weight_EOI, bias_EO


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x_TI, gates_Tk, order_P, slots_Tk, ends_E, weights, biases = inputs
    ctx.experts = len(weights)
    ctx.save_for_backward(x_TI, gates_Tk, order_P, slots_Tk, ends_E, *weights, *biases)


def _backward(ctx: Any, grad_TO: Tensor) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once: activation checkpointing computes them again for each look
    *inputs, ends_E = saved[:5]
    weights, biases = saved[5 : 5 + ctx.experts], saved[5 + ctx.experts :]
    x, gates, weight, bias = _gradients(
        grad_TO.contiguous(), *inputs, ends_E, list(weights), list(biases)
    )
    # An expert without a token gets no gradient, so the optimizer leaves it unchanged. A compiled
    # graph does not know the counts and gives zeros.
    used = [True] * ctx.experts
    if not torch.compiler.is_compiling():
        used = [count > 0 for count in split(ends_E)]
    per_expert = [
        [grad if one else None for grad, one in zip(g, used, strict=True)] for g in (weight, bias)
    ]
    return x, gates, None, None, None, per_expert[0], per_expert[1] if biases else []


_mixture.register_autograd(_backward, setup_context=_setup_context)

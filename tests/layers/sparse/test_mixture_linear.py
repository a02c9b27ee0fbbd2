"""The operator behind token and context routes, against a loop over tokens."""

import pytest
import torch
from tiny import relative_error
from torch import Tensor

from skillweave.layers.sparse.dispatch import plan
from skillweave.layers.sparse.mixture import grouped_linear, grouped_product, mixture_linear

Problem = tuple[Tensor, Tensor, Tensor, list[Tensor], list[Tensor]]


def problem(
    dtype: torch.dtype, bias: bool = True, experts: int = 4, idle: int | None = None
) -> Problem:
    """x [7, 5], expert indices and gates [7, 2], weights and biases; `idle` is an expert without
    tokens."""
    torch.manual_seed(0)
    logits = torch.randn(7, experts, dtype=dtype)
    if idle is not None:
        logits[:, idle] = -100
    gates, chosen = logits.softmax(-1).topk(2)
    x = torch.randn(7, 5, dtype=dtype)
    weights = [torch.randn(3, 5, dtype=dtype) for _ in range(experts)]
    biases = [torch.randn(3, dtype=dtype) for _ in range(experts)] if bias else []
    for tensor in (x, gates, *weights, *biases):
        tensor.requires_grad_()
    return x, chosen, gates, weights, biases


def loop(
    x: Tensor, chosen: Tensor, gates: Tensor, weights: list[Tensor], biases: list[Tensor]
) -> Tensor:
    rows = []
    for t in range(len(x)):
        outputs = [weights[e] @ x[t] + (biases[e] if biases else 0) for e in chosen[t].tolist()]
        rows.append(sum(gate * y for gate, y in zip(gates[t], outputs, strict=True)))
    return torch.stack(rows)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("idle", [None, 0, 2, 3])
def test_equals_a_loop_forward_and_backward(
    dtype: torch.dtype, bound: float, bias: bool, idle: int | None
) -> None:
    x, chosen, gates, weights, biases = problem(dtype, bias, idle=idle)
    found, expected = (
        mixture_linear(x, plan(chosen, gates, 4, [7]), weights, biases),
        loop(x, chosen, gates, weights, biases),
    )
    assert relative_error(found, expected) < bound
    inputs = [x, gates, *weights, *biases]
    probe = torch.randn_like(expected)
    grads = [
        torch.autograd.grad((y * probe).sum(), inputs, allow_unused=True) for y in (found, expected)
    ]
    for mine, theirs in zip(*grads, strict=True):
        assert (mine is None) == (theirs is None)  # an expert without a token gets no gradient
        if mine is not None:
            assert relative_error(mine, theirs) < bound


def test_gradcheck_of_the_loop_and_the_operator() -> None:
    x, chosen, gates, weights, biases = problem(torch.float64)

    def whole(x: Tensor, gates: Tensor, *rest: Tensor) -> Tensor:
        return mixture_linear(x, plan(chosen, gates, 4, [7]), rest[:4], rest[4:])

    def plain(x: Tensor, gates: Tensor, *rest: Tensor) -> Tensor:
        return loop(x, chosen, gates, list(rest[:4]), list(rest[4:]))

    for function in (whole, plain):
        assert torch.autograd.gradcheck(function, (x, gates, *weights, *biases))


def test_the_operators_own_checks() -> None:
    x, chosen, gates, weights, biases = problem(torch.float64)
    given = plan(chosen, gates, 4, [7])
    arguments = (x, gates, given.order, given.slots, given.ends, weights, biases)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.skillweave.mixture_linear.default, arguments, test_utils=checks)


def test_grouped_product_is_the_loop() -> None:
    """The fast path of bf16 on CUDA, which PyTorch also runs, slowly, on a CPU."""
    torch.manual_seed(0)
    x = torch.randn(20, 16, dtype=torch.bfloat16)
    weights = [torch.randn(8, 16, dtype=torch.bfloat16) for _ in range(3)]
    biases = [torch.randn(8, dtype=torch.bfloat16) for _ in range(3)]
    ends = torch.tensor([5, 5, 20], dtype=torch.int32)
    for given in (biases, []):
        expected = grouped_linear(x, weights, given, ends)
        assert (
            relative_error(grouped_product(x, weights, given, ends).float(), expected.float())
            < 2**-7
        )


def test_the_plan_sorts_by_expert_and_counts_by_span() -> None:
    chosen = torch.tensor([[2, 0], [0, 1], [2, 1]])
    given = plan(chosen, torch.full((3, 2), 0.5), 4, [1, 2])
    assert given.order.tolist() == [1, 2, 3, 5, 0, 4]  # assignments of experts 0, 0, 1, 1, 2, 2
    assert given.slots.tolist() == [[4, 0], [1, 2], [5, 3]]
    assert given.ends.tolist() == [2, 4, 6, 6]
    # of the first token, and of the two others
    assert given.statistics.load.tolist() == [[1, 0, 1, 0], [1, 2, 1, 0]]
    x = torch.arange(3.0).unsqueeze(1)
    assert given.gather(x).flatten().tolist() == [0, 1, 1, 2, 0, 2]
    torch.testing.assert_close(given.combine(given.gather(x)), x)  # gates sum to 1


def test_autocast() -> None:
    x, chosen, gates, weights, biases = problem(torch.float32)
    expected = mixture_linear(x, plan(chosen, gates, 4, [7]), weights, biases)
    with torch.autocast("cpu", torch.bfloat16):
        found = mixture_linear(x, plan(chosen, gates, 4, [7]), weights, biases)
    assert found.dtype == torch.bfloat16
    assert relative_error(found.float(), expected) < 0.03
    found.sum().backward()
    assert x.grad.dtype == weights[0].grad.dtype == torch.float32

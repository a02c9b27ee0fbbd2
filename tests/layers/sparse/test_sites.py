"""Two linear layers of a part under every route, the second following the first, against a loop
over tokens."""

from collections.abc import Sequence

import pytest
import torch
from tiny import randomise, relative_error
from torch import Tensor

from skillweave.batch import Attention, Condition, Layout, Modality, Role, Span
from skillweave.config.encoder import RouteConfig
from skillweave.layers.sparse import (
    ConditionalLinear,
    Dense,
    Known,
    Mixed,
    apply_linear,
    build_route,
    resolve_pair,
)
from skillweave.layers.sparse.conditional_linear import worth_merging
from skillweave.layers.sparse.routes.attributes import ATTRIBUTES
from skillweave.layers.tokens import TokenMap, map_tokens

WIDTH, HIDDEN = 6, 9
KNOWN = Known({m: m.value for m in (Modality.TEXT, Modality.IMAGE)}, ("caption",))
LENGTHS = [[4, 3], [2, 3], [4, 1]]
LAYOUT = Layout(
    "caption",
    (Span(Modality.IMAGE, length=4), Span(Modality.TEXT, Role.TARGET, 0, Attention.CAUSAL, 4)),
)
TOKENS = [
    (n, span)
    for span in range(2)
    for n, lengths in enumerate(LENGTHS)
    for _ in range(lengths[span])
]
"""Sample and span of each flat token."""


def tokens(layout: Layout = LAYOUT) -> TokenMap:
    return map_tokens(layout, 0, torch.tensor(LENGTHS), torch.device("cpu"))


def banks(
    route: str, dtype: torch.dtype, active: int = 2
) -> tuple[ConditionalLinear, ConditionalLinear]:
    torch.manual_seed(0)
    first = ConditionalLinear(
        WIDTH, HIDDEN, build_route(RouteConfig(route=route, experts=5, active=active), WIDTH, KNOWN)
    )
    second = ConditionalLinear(HIDDEN, WIDTH, first.route, follows=True)
    for bank in (first, second):
        randomise(bank.to(dtype), 0.5)
    return first, second


def run(
    first: ConditionalLinear, second: ConditionalLinear, x_TD: Tensor, count: int | None
) -> Tensor:
    """`count`: of the tokens that experts are merged for."""
    given = tokens()
    pairs = [resolve_pair(first, second, condition, tokens=count) for condition in given.conditions]
    hidden, dispatch = apply_linear(first, x_TD, given, [pair[0] for pair in pairs])
    return apply_linear(
        second, torch.tanh(hidden), given, [pair[1] for pair in pairs], None, dispatch
    )[0]


def represent(route: torch.nn.Module, name: str, x_TD: Tensor, t: int) -> Tensor:
    """R of equations 5 to 9, for one token."""
    sample, span = TOKENS[t]
    condition: Condition = LAYOUT.condition(span)
    match name:
        case "token":
            return x_TD[t]
        case "context":
            inputs = [x for x, (n, s) in zip(x_TD, TOKENS, strict=True) if (n, s) == (sample, 0)]
            query = route.query.weight @ (sum(inputs) / len(inputs)) + route.query.bias
            weights = torch.stack([query @ x / WIDTH**0.5 for x in inputs]).softmax(0)
            return torch.cat([x_TD[t], sum(w * x for w, x in zip(weights, inputs, strict=True))])
        case "modality":
            return route.vectors[condition.modality.value]
        case "task":
            return route.vectors["caption"]
        case _:
            bits = torch.tensor(ATTRIBUTES["paper"][1](condition)).to(x_TD)
            projected = route.embed.weight @ bits + route.embed.bias
            spread = (projected - projected.mean()) / (projected.var(correction=0) + 1e-5).sqrt()
            return route.norm.weight * spread + route.norm.bias


def loop(first: ConditionalLinear, second: ConditionalLinear, name: str, x_TD: Tensor) -> Tensor:
    rows = []
    for t in range(len(x_TD)):
        probabilities = (first.route.gate.weight @ represent(first.route, name, x_TD, t)).softmax(0)
        best = sorted(range(5), key=lambda e: -probabilities[e].item())[: first.route.active]
        gates = {str(e): probabilities[e] / sum(probabilities[i] for i in best) for e in best}
        hidden = torch.tanh(sum(g * first.experts[e](x_TD[t]) for e, g in gates.items()))
        rows.append(sum(g * second.experts[e](hidden) for e, g in gates.items()))
    return torch.stack(rows)


def gradients(y: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad((y * torch.randn_like(y)).sum(), inputs, allow_unused=True)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("active", [2, 3])
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("token", None),
        ("context", None),
        *((name, n) for name in ("modality", "task", "attribute") for n in (None, 3)),
    ],
)
def test_every_route_equals_a_loop(
    name: str, count: int | None, active: int, dtype: torch.dtype, bound: float
) -> None:
    first, second = banks(name, dtype, active)
    x_TD = torch.randn(len(TOKENS), WIDTH, dtype=dtype, requires_grad=True)
    found, expected = run(first, second, x_TD, count), loop(first, second, name, x_TD)
    assert relative_error(found, expected) < bound
    inputs = [x_TD, *first.parameters(), *second.parameters()]
    for mine, theirs in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert relative_error(mine, theirs) < bound


def test_few_tokens_keep_experts_apart() -> None:
    first, second = banks("attribute", torch.float64)
    condition = LAYOUT.condition(0)
    assert [type(x) for x in resolve_pair(first, second, condition, tokens=31)] == [Mixed, Mixed]
    assert [type(x) for x in resolve_pair(first, second, condition, tokens=32)] == [Dense, Dense]
    assert worth_merging(1, 1) and not worth_merging(3, 23) and worth_merging(3, 24)


def test_two_experts_merge_to_what_lies_between_them() -> None:
    first, _ = banks("task", torch.float64)
    condition = LAYOUT.condition(0)
    (a, gate), (b, _) = first.route.gates(condition).items()
    merged = first.resolve(condition)
    torch.testing.assert_close(
        merged.weight, gate * first.experts[a].weight + (1 - gate) * first.experts[b].weight
    )


def test_a_follower_shares_noise_and_owns_no_gate() -> None:
    first, second = banks("attribute", torch.float64)
    first.route.noise = 3.0
    assert not [name for name, _ in second.named_parameters() if "route" in name]
    for seed in range(5):
        one, two = resolve_pair(
            first.train(), second, LAYOUT.condition(0), torch.Generator().manual_seed(seed), 1
        )
        assert one.gates == two.gates
        assert [a.weight.shape for a in one.experts] == [(HIDDEN, WIDTH)] * 2
        chosen = [
            [any(e.weight is x.weight for x in side.experts) for e in bank.experts.values()]
            for bank, side in ((first, one), (second, two))
        ]
        assert chosen[0] == chosen[1]


def test_resolving_what_looks_at_the_data() -> None:
    first, _ = banks("token", torch.float64)
    with pytest.raises(TypeError, match="run the bank on its tokens"):
        first.resolve(LAYOUT.condition(0))


FUTURE = Span(Modality.TEXT, Role.INPUT, 0, Attention.CAUSAL, 4)
ANSWER = Span(Modality.TEXT, Role.TARGET, length=4)


@pytest.mark.parametrize("second", [FUTURE, ANSWER])
def test_context_knows_neither_the_future_nor_the_answer(second: Span) -> None:
    """Changing the last tokens of the second span changes no other token's gates."""
    given = tokens(Layout("t", (LAYOUT.spans[0], second)))
    route = build_route(RouteConfig(route="context", experts=5), WIDTH, KNOWN).double()
    x_TD = torch.randn(len(TOKENS), WIDTH, dtype=torch.float64)
    changed = x_TD.clone()
    changed[-1] += 10
    torch.testing.assert_close(
        route.logits(changed, given)[:-1], route.logits(x_TD, given)[:-1], rtol=0, atol=0
    )
    changed = x_TD.clone()
    changed[0] += 10  # an input token of sample 0: all of its tokens see it
    moved = (route.logits(changed, given) - route.logits(x_TD, given)).abs().amax(1) > 1e-6
    assert moved.tolist() == [n == 0 for n, _ in TOKENS]


def test_what_stands_behind_a_causal_span_is_no_context() -> None:
    spans = (
        Span(Modality.TEXT, length=4, attention=Attention.CAUSAL),
        Span(Modality.IMAGE, length=4),
    )
    assert not tokens(Layout("t", spans)).context.any()

"""Mixtures of feed-forwards: against a plain loop over tokens, and routing against Hugging Face's
Mixtral."""

import pytest
import torch
from tiny import (
    hidden_states,
    make_batch,
    random_batch,
    random_examples,
    randomise,
    relative_error,
    tiny_config,
    tiny_model,
)
from torch import Tensor
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, MixtralTopKRouter

from skillweave.batch import Layout, Modality, Span
from skillweave.config.encoder import RouteConfig
from skillweave.layers.feed_forward import FeedForward
from skillweave.layers.sparse import ConditionalFeedForward, Known, Statistics, build_route
from skillweave.layers.tokens import TokenMap, map_tokens

KNOWN = Known({m: m.value for m in Modality})
WIDTH = 6


def mixture(route: str = "token", **config: object) -> ConditionalFeedForward:
    built = build_route(RouteConfig(route=route, **config), WIDTH, KNOWN)
    layer = ConditionalFeedForward(lambda: FeedForward(WIDTH, 5), built).double()
    randomise(layer)
    return layer.eval()


def mix(
    layer: ConditionalFeedForward,
    x_TD: Tensor,
    sizes: list[int] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Statistics]:
    """One sample with a span of text and perhaps one of code."""
    sizes = sizes or [len(x_TD)]
    layout = Layout(
        "t",
        tuple(
            Span(m, length=n) for m, n in zip((Modality.TEXT, Modality.CODE), sizes, strict=False)
        ),
    )
    tokens = map_tokens(layout, 0, torch.tensor([sizes]), x_TD.device)
    return layer(x_TD, tokens, [layer.resolve(c) for c in tokens.conditions], generator)


def one_span(count: int) -> TokenMap:
    return map_tokens(
        Layout("t", (Span(Modality.TEXT, length=count),)),
        0,
        torch.tensor([[count]]),
        torch.device("cpu"),
    )


def run(
    layer: ConditionalFeedForward, x_TD: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    return mix(layer, x_TD, generator=generator)[0]


def plain_loop(layer: ConditionalFeedForward, x_TD: Tensor) -> Tensor:
    rows = []
    for x in x_TD:
        probabilities = (layer.route.gate.weight @ x).softmax(0)
        best = sorted(range(len(probabilities)), key=lambda e: -probabilities[e].item())[
            : layer.route.active
        ]
        total = sum(probabilities[e] for e in best)
        rows.append(sum(probabilities[e] / total * layer.experts[str(e)](x) for e in best))
    return torch.stack(rows)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize(
    ("experts", "active", "count"), [(5, 2, 40), (4, 1, 7), (3, 3, 6), (5, 2, 1), (1, 1, 4)]
)
def test_token_route_equals_a_plain_loop(
    experts: int, active: int, count: int, dtype: torch.dtype, bound: float
) -> None:
    layer = mixture(experts=experts, active=active).to(dtype)
    x = torch.randn(count, WIDTH, dtype=dtype, requires_grad=True)
    found, expected = run(layer, x), plain_loop(layer, x)
    assert relative_error(found, expected) < bound
    inputs = [x, *layer.parameters()]
    probe = torch.randn_like(expected)
    grads = [
        torch.autograd.grad((y * probe).sum(), inputs, allow_unused=True) for y in (found, expected)
    ]
    assert [mine is None for mine in grads[0]] == [theirs is None for theirs in grads[1]]
    # All at once: with one active expert the gate's own gradient is 0, which only rounding fills.
    assert (
        relative_error(
            *(torch.cat([grad.flatten() for grad in side if grad is not None]) for side in grads)
        )
        < bound
    )


def test_gradcheck() -> None:
    layer = mixture(experts=3, active=2, balance=0.1)
    x = torch.randn(4, WIDTH, dtype=torch.float64, requires_grad=True)

    def output_and_balance(x: Tensor) -> tuple[Tensor, Tensor]:
        y, statistics = mix(layer, x)
        return y, statistics["feed_forward"].balance

    assert torch.autograd.gradcheck(output_and_balance, x)


def test_routing_is_that_of_mixtral() -> None:
    layer = mixture(experts=5, active=2)
    router = MixtralTopKRouter(
        MixtralConfig(hidden_size=WIDTH, num_local_experts=5, num_experts_per_tok=2)
    ).double()
    with torch.no_grad():
        router.weight.copy_(layer.route.gate.weight)
    x = torch.randn(30, WIDTH, dtype=torch.float64)
    gates = layer.route(x, one_span(30))
    _, weights, experts = router(x)
    assert torch.equal(gates.experts, experts)
    assert relative_error(gates.weights, weights) < 1e-6  # Mixtral's softmax is always in float32


def test_dispatch_is_that_of_mixtral() -> None:
    """With Mixtral's gated feed-forwards as experts the whole block is Mixtral's."""
    config = MixtralConfig(
        hidden_size=WIDTH,
        intermediate_size=5,
        num_local_experts=4,
        num_experts_per_tok=2,
        hidden_act="relu",
    )
    reference = MixtralSparseMoeBlock(config).double()
    randomise(reference)
    layer = ConditionalFeedForward(
        lambda: Gated(5), build_route(RouteConfig(route="token", experts=4), WIDTH, KNOWN)
    ).double()
    with torch.no_grad():
        layer.route.gate.weight.copy_(reference.gate.weight)
        for i, expert in enumerate(layer.experts.values()):
            expert.both.copy_(reference.experts.gate_up_proj[i])
            expert.down.copy_(reference.experts.down_proj[i])
    x = torch.randn(1, 30, WIDTH, dtype=torch.float64)
    assert relative_error(run(layer, x[0]), reference(x)[0]) < 1e-6


class Gated(torch.nn.Module):
    """Mixtral's feed-forward."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.both = torch.nn.Parameter(torch.empty(2 * hidden, WIDTH))
        self.down = torch.nn.Parameter(torch.empty(WIDTH, hidden))

    def forward(self, x_TD: Tensor) -> Tensor:
        gate, up = (x_TD @ self.both.T).chunk(2, dim=-1)
        return (gate.relu() * up) @ self.down.T


def test_all_tokens_to_one_expert() -> None:
    layer = mixture(experts=4, active=1)
    with torch.no_grad():
        layer.route.gate.weight.zero_()
        layer.route.gate.weight[2, 0] = 50
    x = torch.rand(9, WIDTH, dtype=torch.float64) + 0.1
    y, statistics = mix(layer, x)
    torch.testing.assert_close(y, layer.experts["2"](x))
    assert statistics["feed_forward"].load.tolist() == [[0, 0, 9, 0]]
    y.sum().backward()
    assert all(
        (p.grad is not None) == (name == "2")
        for name, e in layer.experts.items()
        for p in e.parameters()
    )


def test_load_and_balance_by_hand() -> None:
    layer = mixture(experts=3, active=2, balance=0.5)
    x = torch.randn(8, WIDTH, dtype=torch.float64)
    statistics = mix(layer, x)[1]["feed_forward"]
    probabilities = (x @ layer.route.gate.weight.T).softmax(-1)
    least = probabilities.argmin(-1)
    counts = [sum(int(row != e) for row in least.tolist()) for e in range(3)]
    assert statistics.load.tolist() == [counts] and sum(counts) == 16
    load = [count / 16 for count in counts]
    expected = 0.5 * 3 * sum(load[e] * probabilities[:, e].mean().item() for e in range(3))
    assert statistics.balance.item() == pytest.approx(expected)
    sum(0.5 * 3 * load[e] * probabilities[:, e].mean() for e in range(3)).backward()
    wanted, layer.route.gate.weight.grad = layer.route.gate.weight.grad, None
    statistics.balance.backward()
    torch.testing.assert_close(layer.route.gate.weight.grad, wanted)


def test_even_load_has_the_least_balance_loss() -> None:
    layer = mixture(experts=4, active=4, balance=1.0)
    with torch.no_grad():
        layer.route.gate.weight.zero_()
    x = torch.randn(8, WIDTH, dtype=torch.float64)
    assert mix(layer, x)[1]["feed_forward"].balance.item() == pytest.approx(1)
    assert mix(mixture(experts=4), x)[1]["feed_forward"].balance is None


def test_noise_is_equal_for_equal_generators_and_only_in_training() -> None:
    layer, x = mixture(noise=2.0).train(), torch.randn(20, WIDTH, dtype=torch.float64)
    same = [run(layer, x, torch.Generator().manual_seed(5)) for _ in range(2)]
    other = run(layer, x, torch.Generator().manual_seed(6))
    assert torch.equal(*same) and not torch.equal(same[0], other)
    plain = run(layer.eval(), x)
    assert torch.equal(run(layer, x, torch.Generator().manual_seed(5)), plain)
    torch.testing.assert_close(plain, plain_loop(layer, x))


def test_skill_and_dense_routes() -> None:
    x, sizes = torch.randn(7, WIDTH, dtype=torch.float64), [3, 4]
    layer = mixture("skill")
    y, statistics = mix(layer, x, sizes)
    torch.testing.assert_close(
        y, torch.cat([layer.experts["text"](x[:3]), layer.experts["code"](x[3:])])
    )
    assert not statistics
    dense = mixture("dense")
    torch.testing.assert_close(mix(dense, x, sizes)[0], dense.experts["shared"](x))


MOE = {"route": "token", "experts": 4, "active": 2, "balance": 0.25}


def test_model_reports_load_and_adds_the_mean_balance_loss() -> None:
    model = tiny_model(tiny_config("dense", MOE))
    batch = random_batch("to_code", [[5, 6], [3, 9]], model.config)
    out = model(batch)
    found = {(*choice, c.name): load.sum().item() for (choice, c), load in out.load.items()}
    assert found == {
        ("encoder", layer, "feed_forward", name): 2 * count
        for layer in range(2)
        for name, count in (("text", 5 + 3), ("code", 6 + 9))
    }
    added = out.loss - out.losses["contrastive"]
    assert added.item() > 0.2  # 0.25 when even
    silent = tiny_model(tiny_config("dense", {**MOE, "balance": 0}))
    silent.load_state_dict(model.state_dict())
    torch.testing.assert_close(silent(batch).loss, out.losses["contrastive"])


def test_sixteen_bits_stay_sixteen_bits() -> None:
    model = tiny_model(tiny_config("dense", MOE), torch.float32)
    examples = random_examples("classify", [[5], [9]], model.config)
    with torch.autocast("cpu", torch.bfloat16):
        found = hidden_states(model, make_batch("classify", examples, model.config))[0]
    expected = hidden_states(model, make_batch("classify", examples, model.config))[0]
    assert relative_error(found.float(), expected) < 0.2

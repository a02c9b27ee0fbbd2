"""Gates on modality, task and attributes: what they are, and what they say when they cannot be."""

import pytest
import torch

from skillweave.batch import Condition, Layout, Modality, Span
from skillweave.config import ConfigError
from skillweave.config.encoder import RouteConfig
from skillweave.layers.sparse import Known, StaticRoute, build_route
from skillweave.layers.sparse.routes.gate import add_noise, select

KNOWN = Known({m: m.value for m in (Modality.TEXT, Modality.IMAGE)}, ("caption", "classify"))
TEXT, IMAGE = Condition("caption", Modality.TEXT), Condition("caption", Modality.IMAGE)


def distribution(given: StaticRoute, condition: Condition) -> torch.Tensor:
    """The softmax over all experts, before the best are picked."""
    return given.gate(given.represent(condition)).softmax(0)


def route(name: str, **config: object) -> StaticRoute:
    torch.manual_seed(0)
    return build_route(RouteConfig(route=name, experts=6, **config), 8, KNOWN).double()


@pytest.mark.parametrize("name", ["modality", "task", "attribute"])
def test_gates_are_the_renormalised_best_of_the_distribution(name: str) -> None:
    given = route(name, active=3)
    shares = distribution(given, TEXT)
    best = sorted(range(6), key=lambda e: -shares[e].item())[:3]
    gates = given.gates(TEXT)
    assert list(gates) == [str(e) for e in best]
    total = sum(shares[e] for e in best)
    for e in best:
        assert gates[str(e)].item() == pytest.approx((shares[e] / total).item())


def test_one_active_expert_has_gate_one_and_costs_nothing() -> None:
    assert list(route("task", active=1).gates(TEXT).values()) == [None]


def test_what_each_route_tells_apart() -> None:
    other = Condition("classify", Modality.TEXT)
    same = {
        name: [
            torch.equal(distribution(given, TEXT), distribution(given, c)) for c in (IMAGE, other)
        ]
        for name in ("modality", "task", "attribute")
        for given in [route(name)]
    }
    assert same == {"modality": [False, True], "task": [True, False], "attribute": [False, True]}


def test_noise_is_the_generators_and_only_in_training() -> None:
    given = route("attribute", noise=1.0).train()

    def drawn(seed: int | None) -> list[float]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return [gate.item() for gate in given.gates(TEXT, generator).values()]

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(None) != drawn(1)
    noisy = drawn(1)
    given.eval()
    assert drawn(1) == drawn(None) != noisy


def test_noise_is_normal_with_the_given_deviation() -> None:
    noise = add_noise(
        route("task").train(), torch.zeros(20_000), 0.125, torch.Generator().manual_seed(0)
    )
    assert noise.mean().abs() < 4 * 0.125 / 20_000**0.5  # four standard errors
    shares = [(noise.abs() < k * 0.125).float().mean().item() for k in (1, 2, 3)]
    assert shares == pytest.approx([0.6827, 0.9545, 0.9973], abs=0.014)


def test_a_task_never_seen() -> None:
    new = Layout("retrieve", (Span(Modality.TEXT),)).condition(0)
    assert len(route("attribute").gates(new)) == 2
    with pytest.raises(
        ConfigError,
        match=r"route 'task' does not know task 'retrieve'.*train with route 'attribute'",
    ):
        route("task").gates(new)
    with pytest.raises(ConfigError, match="does not know task 'clasify'; did you mean 'classify'"):
        route("task").gates(Condition("clasify", Modality.TEXT))


def test_a_modality_never_seen() -> None:
    with pytest.raises(
        ConfigError, match=r"no vector for 'sound'; add a stream 'sound' under model\.streams"
    ):
        route("modality").gates(Condition("caption", Modality.SOUND))


def test_unknown_routes_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown route 'atribute'; did you mean 'attribute'"):
        build_route(RouteConfig.model_construct(route="atribute"), 8, KNOWN)


def test_sixteen_bits_do_not_reach_the_gate() -> None:
    given = route("attribute").float()
    plain = given.gates(TEXT)
    with torch.autocast("cpu", torch.bfloat16):
        assert given.gates(TEXT) == plain


@pytest.mark.parametrize("active", [1, 2, 5])
def test_gates_that_are_not_renormalised_are_shares_of_all_experts(active: int) -> None:
    logits = torch.randn(7, 5).double()
    gates, experts = select(logits, active, renormalise=False)
    shares = logits.softmax(-1)
    torch.testing.assert_close(gates, shares.gather(-1, experts))
    torch.testing.assert_close(gates, shares.topk(active).values)
    renormalised, _ = select(logits, active)
    torch.testing.assert_close(renormalised, gates / gates.sum(-1, keepdim=True))

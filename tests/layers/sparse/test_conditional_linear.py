"""Banks of linear experts: skills, merged gates, and which parameters get a gradient."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import hidden_states, make_batch, random_batch, random_examples, tiny_config, tiny_model
from torch import Tensor, nn

from skillweave.batch import Attention, Condition, Layout, Modality, Role, Span
from skillweave.config import ConfigError
from skillweave.config.encoder import RouteConfig
from skillweave.layers.sparse import (
    ConditionalLinear,
    Known,
    StaticRoute,
    build_route,
    linear_by_span,
)

SKILLS = {m: m.value for m in Modality}
KNOWN = Known(SKILLS)
TEXT, CODE, IMAGE = (Condition("t", m) for m in (Modality.TEXT, Modality.CODE, Modality.IMAGE))


def bank(route: str, **config: object) -> ConditionalLinear:
    return ConditionalLinear(
        4, 6, build_route(RouteConfig(route=route, **config), 4, KNOWN)
    ).double()


class Learned(StaticRoute):
    """Gates of any number, one row per modality."""

    def __init__(self, count: int) -> None:
        super().__init__(RouteConfig(), 4, KNOWN)
        self.experts = tuple(f"e{i}" for i in range(count))
        self.logits = nn.ParameterDict(
            {m.value: nn.Parameter(torch.randn(count, dtype=torch.float64)) for m in Modality}
        )

    def gates(
        self, condition: Condition, generator: torch.Generator | None = None
    ) -> Mapping[str, Tensor | None]:
        return dict(
            zip(self.experts, self.logits[condition.modality.value].softmax(0), strict=True)
        )


def test_skills_equal_a_plain_loop_over_spans() -> None:
    layer, sizes, conditions = bank("skill"), [3, 2, 4], [TEXT, CODE, TEXT]
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    found = linear_by_span(x, [layer.resolve(c) for c in conditions], sizes)
    expected = torch.cat(
        [
            layer.experts[c.modality.value](p)
            for c, p in zip(conditions, x.split(sizes), strict=True)
        ]
    )
    torch.testing.assert_close(found, expected)
    parameters = {n: p for n, p in layer.named_parameters() if n.split(".")[1] in ("text", "code")}
    probe = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * probe).sum(), [x, *parameters.values()])
    (found * probe).sum().backward()
    for grad, parameter in zip(wanted, [x, *parameters.values()], strict=True):
        torch.testing.assert_close(parameter.grad, grad)
    assert all(p.grad is None for n, p in layer.named_parameters() if n not in parameters)


def test_one_expert_is_an_ordinary_layer_and_its_own_parameter() -> None:
    layer = bank("dense")
    x = torch.randn(5, 4, dtype=torch.float64)
    resolved = layer.resolve(TEXT)
    expert = layer.experts["shared"]
    assert resolved.weight is expert.weight and resolved.bias is expert.bias
    both = linear_by_span(x, [resolved, layer.resolve(IMAGE)], [2, 3])
    torch.testing.assert_close(both, F.linear(x, expert.weight, expert.bias), rtol=0, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_merged_weights_equal_mixed_outputs(bias: bool) -> None:
    route = Learned(3)
    layer = ConditionalLinear(4, 6, route, bias).double()
    sizes, conditions = [3, 2], [TEXT, IMAGE]
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    found = linear_by_span(x, [layer.resolve(c) for c in conditions], sizes)
    expected = torch.cat(
        [
            torch.stack([g * layer.experts[e](part) for e, g in route.gates(c).items()]).sum(0)
            for c, part in zip(conditions, x.split(sizes), strict=True)
        ]
    )
    torch.testing.assert_close(found, expected)
    inputs = [x, *layer.experts.parameters(), route.logits["text"], route.logits["image"]]
    probe = torch.randn_like(expected)
    grads = [
        torch.autograd.grad((y * probe).sum(), inputs, retain_graph=True) for y in (found, expected)
    ]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_skills_may_be_shared_by_a_table() -> None:
    layer = bank("skill", skills={"code": "text", "video": "image"})
    assert set(layer.experts) == {"text", "image", "sound"}
    assert layer.resolve(TEXT).weight is layer.resolve(CODE).weight


def test_each_sparse_place_has_a_table_of_its_own() -> None:
    together = {"route": "skill", "skills": {"code": "text"}}
    sparse = {"qkv": {"route": "skill"}, "feed_forward": together}
    block = tiny_model(tiny_config(encoder={"sparse": sparse})).encoder.blocks[0]
    assert set(block.attention.qkv.experts) == set(SKILLS.values())
    assert set(block.feed_forward.experts) == set(SKILLS.values()) - {"code"}


def test_modality_without_a_skill_is_named() -> None:
    route = build_route(RouteConfig(route="skill"), 4, Known({Modality.TEXT: "text"}))
    with pytest.raises(ConfigError, match="unknown skill for modality"):
        route.gates(IMAGE)


def test_each_span_of_code_and_text_uses_its_own_projection() -> None:
    """[code; SEP; text]: with attention's mixing taken out, a span's output depends on its own
    skill alone."""
    layer, x, sizes = bank("skill"), torch.randn(7, 4, dtype=torch.float64), [4, 3]
    layout = Layout("t", (Span(Modality.CODE, length=4), Span(Modality.TEXT, length=3)))
    conditions = [layout.condition(0), layout.condition(1)]
    before = linear_by_span(x, [layer.resolve(c) for c in conditions], sizes)
    with torch.no_grad():
        layer.experts["text"].weight.add_(1)
    after = linear_by_span(x, [layer.resolve(c) for c in conditions], sizes)
    torch.testing.assert_close(after[:4], before[:4], rtol=0, atol=0)
    assert ((after[4:] - before[4:]).abs() > 1e-6).all()


@pytest.mark.parametrize(
    ("task", "own"),
    [("masked_code", {"code", "text"}), ("classify", {"text"}), ("transcribe", {"sound"})],
)
def test_other_skills_play_no_part(task: str, own: set[str]) -> None:
    model = tiny_model()
    lengths = [[5, 4], [3, 7]] if task == "masked_code" else [[6], [3]]
    batch = make_batch(task, random_examples(task, lengths, model.config), model.config)
    before = hidden_states(model, batch)[0]
    for skill in SKILLS.values():
        expert = model.encoder.blocks[1].attention.qkv.experts[skill]
        with torch.no_grad():
            kept = expert.weight.clone()
            expert.weight.add_(0.5)
            moved = not torch.equal(hidden_states(model, batch)[0], before)
            expert.weight.copy_(kept)
        assert moved == (skill in own), skill


def test_role_and_task_are_part_of_the_condition() -> None:
    layout = Layout("t", (Span(Modality.TEXT), Span(Modality.TEXT, Role.TARGET, 1)))
    assert layout.condition(0) != layout.condition(1)
    assert len(layout.conditions) == 2


def test_gradients_reach_the_active_skills_alone() -> None:
    model = tiny_model()
    model(random_batch("to_image", [[5, 5], [3, 5]], model.config)).loss.backward()
    for block in model.encoder.blocks:
        for skill, expert in block.attention.qkv.experts.items():
            assert (expert.weight.grad is not None) == (skill in ("text", "image"))


def test_kinds_of_spans_may_have_a_skill_of_their_own() -> None:
    skills = {"text/causal": "write", "text/target/causal": "answer"}
    layer = bank("skill", skills=skills)
    causal, target = replace(TEXT, attention=Attention.CAUSAL), replace(TEXT, role=Role.TARGET)
    chosen = [
        layer.route.gates(c) for c in (TEXT, causal, target, replace(causal, role=Role.TARGET))
    ]
    assert [list(gates) for gates in chosen] == [["text"], ["write"], ["text"], ["answer"]]

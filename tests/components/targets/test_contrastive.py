"""The contrastive target against Hugging Face's CLIP loss and a plain loop."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tiny import TARGETS, make_batch, random_examples, tiny_config, tiny_model
from torch import Tensor
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from skillweave.batch import Condition, Modality
from skillweave.components.targets.contrastive import Contrastive
from skillweave.config import ConfigError

LENGTHS = [[5, 7], [3, 9], [8, 4], [2, 2]]


class Given:
    """A pass whose vectors are given."""

    tokens = SimpleNamespace(conditions=(Condition("t", Modality.TEXT),))

    def __init__(self, x_ND: Tensor) -> None:
        self.x_ND = x_ND

    def pooled(self, pooling: str) -> Tensor:
        return self.x_ND

    def vector(self, pooling: str = "first") -> Tensor:
        return self.x_ND / self.x_ND.norm(dim=-1, keepdim=True)


def pair(count: int) -> list[Given]:
    return [Given(torch.randn(count, 5, dtype=torch.float64, requires_grad=True)) for _ in range(2)]


def test_distinct_captions_give_the_loss_of_clip() -> None:
    target, passes = Contrastive(0.2).double(), pair(6)
    out = target(passes, {"caption": torch.arange(6)}, None)
    similarity = passes[0].vector() @ passes[1].vector().T * target.log_scale.exp()
    expected = image_text_contrastive_loss(similarity)
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(out.logits, similarity)
    inputs = [p.x_ND for p in passes] + [target.log_scale]
    for found, wanted in zip(
        torch.autograd.grad(out.loss, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(found, wanted)


def test_sigmoid_loss_is_binary_cross_entropy_of_each_pair() -> None:
    """Equal captions are neither matches nor negatives of each other."""
    target = Contrastive(0.5, max_scale=None, bias=-3.0).double()
    passes, captions = pair(5), torch.tensor([7, 3, 7, 8, 4])
    out = target(passes, {"caption": captions}, None)
    logits = 2 * passes[0].vector() @ passes[1].vector().T - 3
    same = captions[:, None] == captions
    own = torch.eye(5, dtype=torch.float64)
    each = F.binary_cross_entropy_with_logits(logits, own, reduction="none")
    torch.testing.assert_close(out.loss, each[~same | own.bool()].sum() / 5)
    torch.testing.assert_close(target(passes, {}, None).logits, logits)
    out.loss.backward()
    assert all(torch.isfinite(p.x_ND.grad).all() for p in passes)


def test_equal_captions_are_not_negatives_of_each_other() -> None:
    target, passes, captions = Contrastive(0.5).double(), pair(5), [7, 3, 7, 7, 4]
    out = target(passes, {"caption": torch.tensor(captions)}, None)
    texts, others = (p.vector().detach() for p in passes)
    total, scale = 0.0, target.log_scale.exp().item()
    for i in range(5):
        for own, opposite in ((texts[i], others), (others[i], texts)):
            scores = [
                scale * float(own @ opposite[j])
                for j in range(5)
                if j == i or captions[j] != captions[i]
            ]
            total += math.log(sum(math.exp(s) for s in scores)) - scale * float(own @ opposite[i])
    assert out.loss.item() == pytest.approx(total / 10, rel=1e-12)
    out.loss.backward()
    assert all(torch.isfinite(p.x_ND.grad).all() for p in passes)


def test_scale_is_bounded_and_starts_at_the_temperature() -> None:
    assert Contrastive(0.07).log_scale.exp().item() == pytest.approx(1 / 0.07)
    target, passes = Contrastive(1e-9, max_scale=50).double(), pair(2)
    assert target(passes, {}, None).logits.abs().max() <= 50


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match="2 passes, not 1"):
        Contrastive()(pair(3)[:1], {}, None)
    with pytest.raises(ValueError, match="at least 2"):
        Contrastive()(pair(1), {"caption": torch.tensor([1])}, None)


def test_vectors_have_unit_length_and_logits_are_their_cosines() -> None:
    model = tiny_model()
    batch = make_batch("to_code", random_examples("to_code", LENGTHS, model.config), model.config)
    texts, codes = model.embed(batch)
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(4, dtype=torch.float64))
    scale = model.targets["contrastive"].log_scale.exp().clamp(max=100)
    torch.testing.assert_close(model(batch).logits["contrastive"], scale * texts @ codes.T)


def test_cosines_are_compared_in_their_precision_under_bf16() -> None:
    """Vectors of an untrained model are nearly equal, and bf16 has few steps near 1."""
    target = Contrastive()
    query, item = F.normalize(1 + 0.01 * torch.randn(2, 4, 16), dim=-1).unbind()
    with torch.autocast("cpu", torch.bfloat16):
        found = target.compare(query, item)
    torch.testing.assert_close(found, target.compare(query, item), rtol=0, atol=0)


@pytest.mark.parametrize("bias", [None, -3.0])
def test_nested_sizes_add_the_losses_of_shortened_vectors(bias: float | None) -> None:
    """A plain loop over the sizes, with a target of its own for each."""
    passes, captions = pair(6), {"caption": torch.tensor([0, 1, 2, 1, 3, 4])}
    target = Contrastive(0.2, bias=bias, dimensions=[2, 3]).double()
    out = target(passes, captions, None)
    expected = torch.zeros((), dtype=torch.float64)
    for size in (5, 3, 2):
        alone = Contrastive(0.2, bias=bias).double()
        alone.load_state_dict(target.state_dict())
        expected = expected + alone([Given(p.x_ND[:, :size]) for p in passes], captions, None).loss
    torch.testing.assert_close(out.loss, expected)
    whole = Contrastive(0.2, bias=bias).double()
    torch.testing.assert_close(out.logits, whole(passes, captions, None).logits)
    inputs = [p.x_ND for p in passes]
    found = torch.autograd.grad(out.loss, inputs)
    for one, wanted in zip(found, torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(one, wanted)


def test_nested_sizes_are_smaller_than_the_vectors() -> None:
    def build(dimensions: list[int], **options) -> None:
        target = {"dimensions": dimensions, **options}
        tiny_config(targets={**TARGETS, "contrastive": target})

    build([4, 8])
    with pytest.raises(ConfigError, match="dimensions: 4096 is no part of the vectors"):
        build([4, 4096])
    with pytest.raises(ConfigError, match="dimensions: 8 is no part of the vectors, which have 8"):
        build([8], projection=8)

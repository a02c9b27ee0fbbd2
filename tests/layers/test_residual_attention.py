"""Residual attention (RealFormer, arXiv 2012.11747): scores are added up over the layers."""

import torch
from tiny import relative_error
from torch import Tensor, nn

from skillweave.batch import Attention, Layout, Modality, Span
from skillweave.layers.attention import Heads, SelfAttention
from skillweave.layers.tokens import map_tokens

HEADS, LENGTHS = Heads(4, 2, 3), [5, 3]


def looped(
    attention: SelfAttention, x_LD: Tensor, before: list[Tensor] | None
) -> tuple[Tensor, list[Tensor]]:
    """The output and the scores of each head for one causal text. Two heads share a key."""
    projected = attention.qkv(x_LD)
    query, key, value = projected.split(HEADS.sizes, dim=1)
    outputs, scores = [], []
    for head in range(HEADS.queries):
        q = query[:, 3 * head : 3 * head + 3]
        k, v = (part[:, 3 * (head // 2) : 3 * (head // 2) + 3] for part in (key, value))
        score = q @ k.T / 3**0.5
        if before is not None:
            score = score + before[head]
        scores.append(score)
        seen = torch.ones_like(score).tril().bool()
        outputs.append(score.masked_fill(~seen, -torch.inf).softmax(1) @ v)
    return attention.output(torch.cat(outputs, dim=1)), scores


def test_scores_are_those_of_all_layers_before() -> None:
    """With grouped keys, causal texts and padding."""
    layers = [
        SelfAttention(HEADS, nn.Linear(12, 24), nn.Linear(12, 12), residual=True).double()
        for _ in range(3)
    ]
    span = Span(Modality.TEXT, attention=Attention.CAUSAL, length=max(LENGTHS))
    layout = Layout("t", (span,))
    tokens = map_tokens(layout, 0, torch.tensor([LENGTHS]).T, torch.device("cpu"))
    texts = [torch.randn(length, 12, dtype=torch.float64) for length in LENGTHS]
    x_TD, scores = torch.cat(texts), None
    carried: list[list[Tensor] | None] = [None, None]
    for layer in layers:
        resolved = [layer.resolve(layout.condition(0))]
        x_TD, _, scores = layer.with_scores(x_TD, tokens, resolved, before=scores)
        both = [looped(layer, x, before) for x, before in zip(texts, carried, strict=True)]
        texts, carried = [x for x, _ in both], [found for _, found in both]
        assert relative_error(x_TD, torch.cat(texts)) < 1e-12


def test_no_scores_without_it() -> None:
    attention = SelfAttention(HEADS, nn.Linear(12, 24), nn.Linear(12, 12))
    layout = Layout("t", (Span(Modality.TEXT, length=4),))
    tokens = map_tokens(layout, 0, torch.tensor([[4]]), torch.device("cpu"))
    resolved = [attention.resolve(layout.condition(0))]
    assert attention.with_scores(torch.randn(4, 12), tokens, resolved)[2] is None

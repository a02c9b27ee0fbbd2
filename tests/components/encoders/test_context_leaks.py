"""What gates that see a context must not learn of, whatever the layout: the future, and other
samples."""

from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_config, tiny_model

from skillweave.batch import Attention, Layout, Modality, Role, Span
from skillweave.layers.tokens import map_tokens
from skillweave.model.model import Model


@cache
def model() -> Model:
    torch.manual_seed(0)
    return tiny_model(
        tiny_config(encoder={"sparse": {"linears": {"route": "context", "experts": 4}}})
    )


SPANS = st.builds(
    Span,
    modality=st.sampled_from(Modality),
    role=st.sampled_from(Role),
    attention=st.sampled_from(Attention),
    length=st.integers(1, 4),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Layout, list[list[int]], int]:
    """A layout of one pass, the true lengths of two samples, and the token that is changed."""
    spans = tuple(draw(st.lists(SPANS, min_size=1, max_size=3)))
    lengths = [[draw(st.integers(1, span.length)) for span in spans] for _ in range(2)]
    return Layout("new", spans), lengths, draw(st.integers(0, sum(map(sum, lengths)) - 1))


def reached(layout: Layout) -> torch.Tensor:
    """[L, L] what a position (row) may know of another (column) through attention, in however many
    layers."""
    whole = [[span.length for span in layout.spans]]
    tokens = map_tokens(layout, 0, torch.tensor(whole), torch.device("cpu"))
    sees = torch.eye(tokens.length) + (1 if tokens.mask is None else tokens.mask.float())
    for _ in range(tokens.length):
        sees = ((sees @ sees) > 0).float()
    return sees > 0


@settings(max_examples=60, deadline=None)
@given(cases())
def test_a_token_changes_only_what_attention_lets_it_reach(
    case: tuple[Layout, list[list[int]], int],
) -> None:
    """Nothing before it if it is causal, unless a later span passes it on; and no other sample."""
    layout, lengths, changed = case
    encoder = model().encoder
    tokens = map_tokens(layout, 0, torch.tensor(lengths), torch.device("cpu"))
    weights = [encoder.resolve([condition])[condition] for condition in tokens.conditions]
    x_TD = torch.randn(sum(tokens.sizes), model().config.width, dtype=torch.float64)
    other_TD = x_TD.clone()
    other_TD[changed] += 3
    before, after = (encoder(given, tokens, weights)[0] for given in (x_TD, other_TD))
    position = torch.arange(tokens.length).expand(2, -1)
    sample, place = (
        tokens.to_tokens(grid) for grid in (torch.arange(2)[:, None].expand_as(position), position)
    )
    safe = (sample != sample[changed]) | ~reached(layout)[place, place[changed]]
    torch.testing.assert_close(after[safe], before[safe])
    assert not torch.allclose(after[changed], before[changed])


def test_causal_tokens_behind_a_picture_reach_no_token_before_them() -> None:
    spans = (
        Span(Modality.IMAGE, length=2),
        Span(Modality.TEXT, attention=Attention.CAUSAL, length=2),
    )
    assert reached(Layout("t", spans)).tolist() == [
        [True, True, False, False], [True, True, False, False], [True, True, True, False], [True, True, True, True]
    ]  # fmt: skip

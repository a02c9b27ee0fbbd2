"""One vector a sample: its first token, or the mean of its true tokens, whatever stands in the
padding."""

import pytest
import torch

from skillweave.batch import Layout, Modality, Span
from skillweave.components.targets import Encoded
from skillweave.layers.tokens import map_tokens

LENGTHS = {
    "padding is dropped": [[5, 3], [2, 4]],
    "no padding": [[5, 4], [5, 4]],
    "too little padding to drop": [[5, 3]] + [[5, 4]] * 9,
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_vectors_of_samples(lengths: list[list[int]]) -> None:
    layout = Layout("t", (Span(Modality.CODE, length=5), Span(Modality.TEXT, length=4)))
    tokens = map_tokens(layout, 0, torch.tensor(lengths), torch.device("cpu"))
    padded_NLD = torch.randn(len(lengths), 9, 3, dtype=torch.float64)
    encoded = Encoded(tokens.to_tokens(padded_NLD), tokens)
    for i, (code, text) in enumerate(lengths):
        true = torch.cat([padded_NLD[i, :code], padded_NLD[i, 5 : 5 + text]])
        assert torch.allclose(encoded.pooled("mean")[i], true.mean(0))
        assert torch.equal(encoded.pooled("max")[i], true.max(0).values)
        assert torch.equal(encoded.pooled("first")[i], true[0])
        assert torch.allclose(encoded.pooled("rest")[i], true[1:].mean(0))
        assert torch.allclose(encoded.vector("mean")[i].norm(), torch.ones((), dtype=torch.float64))

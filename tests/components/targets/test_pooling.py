"""One vector a sample: its first token, or the mean of its true tokens, whatever stands in the
padding."""

import pytest
import torch
from tiny import make_batch, random_examples, task, tiny_config, tiny_model

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


@pytest.mark.parametrize("kind", ["pooled", "classification", "regression"])
def test_samples_are_encoded_as_their_target_pools_them(kind: str) -> None:
    """A target without comparisons has a pooling too, which the vectors of its task follow."""
    target = {"hidden": False, "pooling": "mean"}
    target |= {"classes": ["a", "b"]} if kind == "classification" else {}
    tasks = {"classify": task(kind, "text")}
    model = tiny_model(tiny_config(tasks=tasks, targets={kind: target}))
    batch = make_batch(
        "classify", random_examples("classify", [[5], [3]], model.config), model.config
    )
    hidden_NLD = model.hidden(batch)[0]
    for i, length in enumerate([5, 3]):
        expected = torch.nn.functional.normalize(hidden_NLD[i, :length].mean(0), dim=0)
        torch.testing.assert_close(model.embed(batch)[0][i], expected)

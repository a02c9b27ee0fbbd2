"""ALiBi: the published slopes, and a bias that is really applied."""

import pytest
import torch
from tiny import random_batch, tiny_config, tiny_model
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from skillweave.layers.position import alibi_slopes


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 16, 20])
def test_slopes_are_those_of_bloom(heads: int) -> None:
    bias_H1L = build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)  # slope times position: 0, then the slope itself
    assert alibi_slopes(heads) == pytest.approx(bias_H1L[:, 0, 1].tolist())


def test_alibi_is_applied_and_has_no_parameters() -> None:
    """With learned positions at nothing, only the bias can tell a text from its words in another order."""
    outputs = []
    for kind in ("alibi", "none"):
        config = tiny_config(encoder={"position": {"kind": kind}})
        torch.manual_seed(0)
        model = tiny_model(config)
        assert not any("alibi" in name or "slope" in name for name, _ in model.named_parameters())
        model.get_parameter("embeddings.text.positions.position.table.weight").data.zero_()
        batch = random_batch("classify", [(5,)], config)
        words_NL = batch.inputs[0]
        first = model(batch).logits["classification"]
        words_NL[:, 1:5] = words_NL[:, 1:5].flip(1)
        outputs.append((first - model(batch).logits["classification"]).abs().max().item())
    assert outputs[0] > 1e-6 and outputs[1] < 1e-12

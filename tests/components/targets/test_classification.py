"""Classification reads the first token, through BERT's pooler or without it."""

import pytest
import torch
import torch.nn.functional as F
from tiny import TARGETS, hidden_states, random_batch, tiny_config, tiny_model


@pytest.mark.parametrize("hidden", [True, False])
def test_logits_and_loss_by_hand(hidden: bool) -> None:
    targets = {**TARGETS, "classification": {"classes": ["a", "b", "c"], "hidden": hidden}}
    model = tiny_model(tiny_config(targets=targets))
    batch = random_batch("classify", [[9], [4], [6]], model.config)
    first = hidden_states(model, batch)[0][:, 0]
    target = model.targets["classification"]
    assert (target.pooler is not None) == hidden
    logits = target.classifier(torch.tanh(target.pooler(first)) if hidden else first)
    out = model(batch)
    torch.testing.assert_close(out.logits["classification"], logits)
    torch.testing.assert_close(out.loss, F.cross_entropy(logits, batch.labels["class"]))

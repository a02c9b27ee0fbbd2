"""Compiled blocks compute what blocks compute, over batches of any length, in one graph each."""

import numpy as np
import pytest
import torch
from tiny import random_batch, tiny_model
from torch._dynamo.utils import counters

LENGTHS = [[5, 7, 3], [8, 8, 2], [4, 9, 9, 10], [6, 12, 12, 5]]


@pytest.fixture(autouse=True)
def own_counts() -> None:
    torch._dynamo.reset()
    counters.clear()


def test_losses_and_gradients_are_the_same_and_nothing_is_compiled_twice() -> None:
    """The backend traces forward and backward pass, and runs the kernels of PyTorch."""
    plain, compiled = tiny_model().train(), tiny_model().train()
    compiled.load_state_dict(plain.state_dict())
    for module in [*plain.modules(), *compiled.modules()]:
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    compiled.compile_blocks(backend="aot_eager")
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for lengths in LENGTHS:
        batch = random_batch("masked_text", [[n] for n in lengths], plain.config)
        losses = [model(batch).loss for model in (plain, compiled)]
        torch.testing.assert_close(*losses)
        for loss, model in zip(losses, (plain, compiled), strict=True):
            model.zero_grad()
            loss.backward()
        for (name, one), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None), name
            if one.grad is not None:
                np.testing.assert_allclose(one.grad, other.grad, atol=1e-10)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1

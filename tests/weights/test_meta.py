"""Modules on the meta device: no weights, no random numbers, and no slow imports."""

import subprocess
import sys

import torch
from torch import nn

from skillweave.weights.meta import meta_device

LAYERS = (
    lambda: nn.Linear(2, 3),
    lambda: nn.Embedding(4, 2),
    lambda: nn.Conv2d(3, 2, 4),
    lambda: nn.MultiheadAttention(4, 2),
    lambda: nn.LayerNorm(3),
)


def test_shapes_are_those_of_real_modules_and_no_number_is_drawn() -> None:
    before = torch.get_rng_state()
    with meta_device():
        made = [layer() for layer in LAYERS]
    assert torch.equal(before, torch.get_rng_state())
    for layer, module in zip(LAYERS, made, strict=True):
        assert all(x.is_meta for x in module.parameters())
        shapes = {name: x.shape for name, x in module.named_parameters()}
        assert shapes == {name: x.shape for name, x in layer().named_parameters()}


def test_tensors_of_other_devices_are_initialized_as_usual() -> None:
    torch.manual_seed(1)
    expected = nn.init.normal_(torch.empty(5))
    torch.manual_seed(1)
    with meta_device():
        found = nn.init.normal_(torch.empty(5, device="cpu"))
        zeros = nn.init.zeros_(torch.empty(2, device="cpu"))
    assert torch.equal(found, expected) and not zeros.any()


def test_torch_dynamo_is_not_imported() -> None:
    code = """if True:
        import sys
        from torch import nn
        from skillweave.weights.meta import meta_device
        with meta_device():
            nn.Transformer(8, 2, 1, 1, 8), nn.Embedding(4, 2), nn.Conv1d(2, 2, 2)
            nn.init.trunc_normal_(nn.Linear(2, 2).weight)
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)

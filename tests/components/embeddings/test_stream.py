"""How pictures and clips start."""

import pytest
import torch
from tiny import random_batch, tiny_config

from skillweave.model.model import Model


@pytest.mark.parametrize(("task", "positions"), [("to_image", 5), ("to_video", 9)])
def test_no_single_vector_takes_up_a_clipped_gradient(task: str, positions: int) -> None:
    """At zero the slope of a layer normalisation is 1 / √ε, so [CLS] must not start there: its
    gradient would be all there is."""
    torch.manual_seed(0)
    config = tiny_config(encoder={"norm_position": "pre", "norm_epsilon": 1e-12})
    model = Model(config).double()
    loss = model(random_batch(task, [(3, positions), (4, positions)], config)).loss
    assert loss is not None
    loss.backward()
    norms = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    total = torch.stack(list(norms.values())).norm()
    assert norms[next(name for name in norms if name.endswith(".first"))] < total / 2

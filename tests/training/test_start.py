"""Beginning from another model's weights."""

import pytest
import torch
from torch import nn

from skillweave.config import ConfigError
from skillweave.training.start import take_weights


def build(**heads):
    return nn.ModuleDict({"encoder": nn.Linear(3, 3), **{name: nn.Linear(3, size) for name, size in heads.items()}})


def test_takes_what_agrees_and_reports_the_rest():
    own, other = build(classes=5, fresh=2), build(classes=4, words=7)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    report = take_weights(own, other.state_dict(), "runs/pretrained")
    assert torch.equal(own["encoder"].weight, other["encoder"].weight)
    for name in ("classes.weight", "fresh.weight"):
        assert torch.equal(own.state_dict()[name], before[name])
    assert "took 2 of 6 tensors" in report
    assert "not there: fresh.bias, fresh.weight" in report
    assert "classes.weight is (4, 3), expected (5, 3)" in report
    assert "not used: words.bias, words.weight" in report


def test_nothing_in_common_is_an_error():
    with pytest.raises(ConfigError, match="no weight there agrees"):
        take_weights(nn.Linear(2, 2), nn.Linear(3, 3).state_dict(), "elsewhere")

"""Devices and precision."""

import warnings

import pytest
import torch
from stand_ins import tiny_recipe

from skillweave.config import ConfigError
from skillweave.training.parallel import make_fabric


def test_missing_devices_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"training\.accelerator: PyTorch finds no 'cuda'"):
        make_fabric(tiny_recipe(tmp_path, accelerator="cuda").training)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        ConfigError, match=r"training\.devices: 4 requested, but this machine has 2"
    ):
        make_fabric(tiny_recipe(tmp_path, accelerator="cuda", devices=4).training)


@pytest.mark.parametrize("native", [True, False])
def test_emulated_bf16_is_told(tmp_path, monkeypatch, native):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        make_fabric(tiny_recipe(tmp_path, accelerator="cpu", precision="bf16").training)
    assert any("bf16 is emulated on this CPU" in str(warning.message) for warning in told) != native

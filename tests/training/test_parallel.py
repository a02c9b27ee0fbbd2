"""Devices, signals and seeds."""

import os
import signal
import threading
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import tiny_recipe

from skillweave.config import ConfigError
from skillweave.training.parallel import (
    Signals,
    StopRequest,
    derive,
    make_fabric,
    route_noise,
    seed_step,
)


def test_missing_devices_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"training\.accelerator: PyTorch finds no 'cuda'"):
        make_fabric(tiny_recipe(tmp_path, accelerator="cuda").training)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        ConfigError, match=r"training\.devices: 4 asked for, but this machine has 2"
    ):
        make_fabric(tiny_recipe(tmp_path, accelerator="cuda", devices=4).training)


@pytest.mark.parametrize("native", [True, False])
def test_emulated_bf16_is_told(tmp_path, monkeypatch, native):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        make_fabric(tiny_recipe(tmp_path, accelerator="cpu", precision="bf16").training)
    assert any("bf16 is emulated on this CPU" in str(warning.message) for warning in told) != native


def test_signals_are_remembered_and_handlers_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stop = StopRequest()
    with Signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGTERM  # the first one counts
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_other_threads_train_without_handlers():
    entered = []

    def enter():
        with Signals(StopRequest()) as signals:
            entered.append(signals.before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [{}]


@given(st.tuples(*[st.integers(0, 2**31)] * 4), st.tuples(*[st.integers(0, 2**31)] * 4))
def test_seeds_differ_where_their_numbers_do(one, other):
    assert (derive(*one) == derive(*other)) == (one == other)
    assert 0 <= derive(*one) < 2**63


def test_noise_is_equal_on_all_processes_and_dropout_is_not():
    def dropout(step, rank):
        seed_step(0, step, rank)
        return torch.rand(4)

    draws = [torch.rand(4, generator=route_noise(0, step)) for step in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(dropout(3, 0), dropout(3, 0))
    assert not torch.equal(dropout(3, 0), dropout(3, 1)) and not torch.equal(
        dropout(3, 0), dropout(4, 0)
    )

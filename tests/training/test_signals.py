"""Signals that stop a run."""

import os
import signal
import threading

import pytest

from skillweave.training.signals import StopRequest, handle_signals


def test_signals_are_remembered_and_handlers_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stop = StopRequest()
    with handle_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGTERM  # the first one counts
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    stop = StopRequest()
    try:
        with handle_signals(stop):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal == 0 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_train_without_handlers():
    entered, before = [], signal.getsignal(signal.SIGTERM)

    def enter():
        with handle_signals(StopRequest()):
            entered.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [before]

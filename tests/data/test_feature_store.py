"""Features on disk: what was stored comes back, in any process, up to a size; nothing half
written."""

import multiprocessing
import pickle
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from skillweave.config import ConfigError
from skillweave.data.feature_store import FeatureCache, FeatureStore

LARGE = 2**40


def numbers(seed: int, count: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def test_what_is_stored_comes_back_exactly(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "new", LARGE)
    store.put((bytes([i]), numbers(i)) for i in range(20))
    again = FeatureStore(tmp_path / "new", LARGE)
    assert len(again) == 20 and again.get(b"absent") is None
    for i in range(20):
        np.testing.assert_array_equal(again.get(bytes([i])), numbers(i))


def _write(store: FeatureStore, first: int) -> None:
    for i in range(first, first + 50):
        store.put([(i.to_bytes(2, "big"), numbers(i))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_write_at_once(tmp_path: Path, method: str) -> None:
    """They write overlapping keys; the store was open before they were forked."""
    store = FeatureStore(tmp_path, LARGE)
    store.put([(b"mine", numbers(0))])
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=_write, args=(store, first)) for first in (0, 25)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(store) == 76
    for i in range(75):
        np.testing.assert_array_equal(store.get(i.to_bytes(2, "big")), numbers(i))


def test_a_transaction_that_fails_stores_nothing(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, LARGE)

    def rows():
        yield b"first", numbers(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put(rows())
    assert len(store) == 0


def test_a_full_store_is_read_on_and_warns(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 2**20)
    with pytest.warns(UserWarning, match="is full"):
        for i in range(100):
            store.put([(bytes([i]), numbers(i, 10_000))])
    stored = len(store)
    assert 0 < stored < 40 and store.file.stat().st_size <= 2**20
    np.testing.assert_array_equal(store.get(bytes([0])), numbers(0, 10_000))
    store.put([(b"more", numbers(1))])
    assert len(store) == stored


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, LARGE)
    store.file.write_bytes(b"no database at all" * 1000)
    with pytest.raises(ConfigError, match="remove it"):
        store.get(b"key")


def test_the_cache_computes_once_and_tells_contents_and_backbones_apart(tmp_path: Path) -> None:
    seen = []

    def extract(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return pixels.flatten(1).unflatten(1, (2, 6)) * 2

    def cache(name: str) -> FeatureCache:
        return FeatureCache(FeatureStore(tmp_path, LARGE), extract, (2, 6), name)

    pixels = torch.arange(12.0).view(3, 2, 2)
    first = cache("a").features(b"one", lambda: pixels)
    again = pickle.loads(pickle.dumps(cache("a").store)).get
    assert again is not None
    torch.testing.assert_close(cache("a").features(b"one", lambda: 1 / 0), first)
    torch.testing.assert_close(first, pixels.view(2, 6) * 2)
    assert len(seen) == 1
    cache("a").features(b"two", lambda: pixels)
    cache("b").features(b"one", lambda: pixels)
    assert len(seen) == 3


def test_a_crash_leaves_whole_rows(tmp_path: Path) -> None:
    """What a process wrote without committing is not there for the next one."""
    store = FeatureStore(tmp_path, LARGE)
    store.put([(b"whole", numbers(0))])
    other = sqlite3.connect(store.file)
    other.execute("INSERT INTO features VALUES (?, ?)", (b"half", b"1234"))
    other.close()  # without a commit, as when the process is killed
    assert len(FeatureStore(tmp_path, LARGE)) == 1

"""Runs with a copy in an object store: fsspec's stores in memory and on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest
from training_recipes import recipe

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.storage import read_checksums
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.errors import TrainingError
from skillweave.training.run_store import LINKS, RunStore

TASK = ("text_classification",)


@pytest.fixture(params=["memory", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path):
    """Of an empty store."""
    if request.param == "file":
        yield f"file://{tmp_path}/store/run"
        return
    yield f"memory://{tmp_path.name}/run"
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def save(run: Path, step: int, store: RunStore | None, text: str = "", best: int | None = None):
    """Write a checkpoint of one file."""

    def write(folder: Path) -> None:
        (folder / "assets").mkdir()
        (folder / "assets" / "weights").write_text(f"{step}{text}", "utf-8")

    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text(f"{step}\n", "utf-8")
    Checkpoints(run, 2, store).save(TrainingState(step, best_step=best), write)


def weights(run: Path, step: int) -> str:
    return (Checkpoints(run).path(step) / "assets" / "weights").read_text("utf-8")


def test_a_run_goes_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after a stop is as it was without."""
    monkeypatch.chdir(tmp_path)
    address = f"file://{tmp_path}/store/run"
    described = recipe(address, TASK, steps=2, validate_every=1, checkpoint_every=1, log_every=1)
    run = sw.train(described, quiet=True)
    assert run == Path("runs") / described.name
    sums = [read_checksums(run / link) for link in LINKS]
    lines = len((run / "metrics.jsonl").read_text("utf-8").splitlines())
    shutil.rmtree("runs")
    with pytest.raises(ConfigError, match="already holds a run; continue it with --resume"):
        sw.train(described, quiet=True)
    shutil.rmtree("store/run/checkpoints/step-00000002")
    assert sw.train(described, resume=True, quiet=True) == run
    for before, link in zip(sums, LINKS, strict=True):
        now = read_checksums(run / link)
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert now[name] == before[name]
    assert len((run / "metrics.jsonl").read_text("utf-8").splitlines()) == lines
    assert RunStore(address).steps() == [1, 2]
    assert not Path("store/run/writer").exists()


def test_the_store_keeps_what_the_folder_keeps(address: str, tmp_path: Path) -> None:
    store = RunStore(address)
    with store.claimed(pytest.fail):
        for step in (1, 2, 3, 4):
            save(tmp_path / "run", step, store, best=1)
    assert store.steps() == [1, 3, 4] == Checkpoints(tmp_path / "run").steps()
    store.pull(tmp_path / "other")
    assert Checkpoints(tmp_path / "other").steps() == [1, 4]  # the newest, and the best
    assert weights(tmp_path / "other", 4) == "4"
    assert (tmp_path / "other" / "metrics.jsonl").read_text() == "4\n"


def test_a_checkpoint_is_complete_when_its_list_is_there(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = RunStore(address), tmp_path / "run"
    with store.claimed(pytest.fail):
        save(run, 1, store)
        with monkeypatch.context() as patched:
            patched.setattr(store, "_write", lambda *_: (_ for _ in ()).throw(OSError("gone")))
            with pytest.raises(TrainingError, match=r"gone.*step-00000002 is complete.*--resume"):
                save(run, 2, store)
        assert store.steps() == [1]
        assert Checkpoints(run).steps() == [1, 2]
        save(run, 3, store)
    assert store.steps() == [2, 3]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(address: str, tmp_path: Path) -> None:
    store = RunStore(address)
    with store.claimed(pytest.fail):
        for step in (1, 2):
            save(tmp_path / "run", step, store)
    system, root = fsspec.core.url_to_fs(address)
    system.pipe_file(f"{root}/checkpoints/step-00000002/assets/weights", b"3")
    with pytest.warns(UserWarning, match="step-00000002/assets/weights: damaged"):
        store.pull(tmp_path / "other")
    assert Checkpoints(tmp_path / "other").steps() == [1]
    system.pipe_file(f"{root}/checkpoints/step-00000001/assets/weights", b"3")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ConfigError, match="every checkpoint of the run is damaged"),
    ):
        store.pull(tmp_path / "third")


def test_another_checkpoint_of_the_same_step_replaces_the_first(
    address: str, tmp_path: Path
) -> None:
    store = RunStore(address)
    with store.claimed(pytest.fail):
        save(tmp_path / "run", 1, store)
        save(tmp_path / "again", 1, store, " again")
    store.pull(tmp_path / "other")
    assert weights(tmp_path / "other", 1) == "1 again"


def test_the_process_that_came_last_writes_the_run(address: str, tmp_path: Path) -> None:
    first, second, told = RunStore(address), RunStore(address), []
    with first.claimed(pytest.fail):
        save(tmp_path / "run", 1, first)
        with second.claimed(told.append):
            assert len(told) == 1 and "has not ended its run there" in told[0]
            with pytest.raises(TrainingError, match="now writes this run, so this process ends"):
                save(tmp_path / "run", 2, first)
            save(tmp_path / "other", 2, second)
        assert second.steps() == [1, 2]
    with second.claimed(pytest.fail):
        pass


def test_unknown_stores_are_told() -> None:
    with pytest.raises(ConfigError, match=r"nothing://there: .*s3fs"):
        RunStore("nothing://there")

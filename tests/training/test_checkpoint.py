"""A checkpoint is complete or absent, whatever call a crash interrupts."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from skillweave.storage import final_name
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.errors import TrainingError

CALLS = [(os, "rename"), (os, "replace"), (os, "fsync"), (os, "open"), (shutil, "rmtree"), (Path, "mkdir"),
         (Path, "symlink_to"), (Path, "unlink"), (Path, "write_text")]  # fmt: skip


class Crash(BaseException):
    """Stands for a crash of the machine."""


def write_weights(folder):
    (folder / "model.safetensors").write_text(f"weights of {final_name(folder.name)}")
    (folder / "assets").mkdir()
    (folder / "assets" / "tokenizer.json").write_text("{}")


def save(checkpoints, step, **state):
    checkpoints.save(TrainingState(step=step, **state), write_weights)


def assert_whole(folder):
    assert TrainingState.read(folder).step == int(folder.name.removeprefix("step-"))
    assert (folder / "model.safetensors").read_text() == f"weights of {folder.name}"
    assert (folder / "assets" / "tokenizer.json").is_file()


def test_state_survives(tmp_path):
    state = TrainingState(7, 3, {"a": 4}, 5, 1 / 3, 6, 1, {"running": {"a": 2.0 / 3}})
    state.write(tmp_path)
    assert TrainingState.read(tmp_path) == state


def test_newest_of_nothing(tmp_path):
    assert Checkpoints(tmp_path, save_total_limit=1).newest() is None


def test_links_and_what_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, save_total_limit=2)
    for step in (1, 2, 3, 4, 5):
        save(checkpoints, step, best_step=min(step, 2), best_value=0.5)
    assert checkpoints.steps() == [2, 4, 5]
    assert os.readlink(tmp_path / "best") == "checkpoints/step-00000002"
    assert (tmp_path / "last").resolve() == (tmp_path / "checkpoints" / "step-00000005").resolve()
    assert checkpoints.newest() == checkpoints.path(5)
    for step in (2, 4, 5):
        assert_whole(checkpoints.path(step))


def test_no_best_link_without_validation(tmp_path):
    save(Checkpoints(tmp_path, save_total_limit=1), 3)
    assert not (tmp_path / "best").exists() and (tmp_path / "last").exists()


def crash_after(monkeypatch, count):
    """Crash after `count` calls of the file system. Returns the calls made."""
    made = []
    for owner, name in CALLS:
        real = getattr(owner, name)

        def call(*args, _real=real, _name=name, **kwargs):
            if len(made) >= count:
                raise Crash
            made.append(_name)
            return _real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)
    return made


def count_calls(tmp_path):
    checkpoints = Checkpoints(tmp_path, save_total_limit=1)
    save(checkpoints, 1, best_step=1)
    with pytest.MonkeyPatch.context() as patch:
        made = crash_after(patch, 10**6)
        save(checkpoints, 2, best_step=2)
    return len(made)


def test_a_crash_at_any_call_leaves_a_whole_checkpoint(tmp_path):
    calls = count_calls(tmp_path / "count")
    assert calls > 12
    outcomes = set()
    for count in range(calls):
        run = tmp_path / str(count)
        checkpoints = Checkpoints(run, save_total_limit=1)
        save(checkpoints, 1, best_step=1)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
            crash_after(patch, count)
            save(checkpoints, 2, best_step=2)
        newest = checkpoints.newest()
        assert newest is not None
        assert_whole(newest)
        for link in ("best", "last"):
            assert_whole((run / link).resolve())
        state = TrainingState.read(newest)
        checkpoints.clean(state)
        assert checkpoints.steps() == [state.step]
        assert (run / "last").resolve() == (run / "best").resolve() == newest.resolve()
        assert not list(run.rglob("*.partial"))
        outcomes.add(state.step)
    assert outcomes == {1, 2}  # crashes before the rename go back, later ones do not


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_says_so_and_the_last_checkpoint_stays(tmp_path, error):
    checkpoints = Checkpoints(tmp_path, save_total_limit=1)
    save(checkpoints, 1)

    def write(folder):
        write_weights(folder)
        raise error

    with pytest.raises(TrainingError, match=r"no space left.*step-00000001 is complete.*--resume"):
        checkpoints.save(TrainingState(step=2), write)
    assert_whole(checkpoints.newest())
    assert not list(tmp_path.rglob("*.partial"))


def test_other_failures_name_their_cause(tmp_path):
    def write(folder):
        raise PermissionError(errno.EACCES, "Permission denied", "somewhere")

    with pytest.raises(TrainingError, match=r"step 2 .*Permission denied.*there is no checkpoint"):
        Checkpoints(tmp_path, save_total_limit=1).save(TrainingState(step=2), write)

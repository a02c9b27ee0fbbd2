"""Checkpoints that are whole or absent, whatever moment the machine stops at."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from skillweave.training.errors import TrainingError

NAME = re.compile(r"step-(\d{8,})")
PARTIAL = ".partial"


@dataclass
class State:
    """All of a run that is neither weights nor optimiser; random numbers need none, being drawn
    from (seed, step)."""

    step: int = 0
    """Updates done, skipped ones included."""
    seed: int = 0
    """Of the run."""
    samples: dict[str, int] = field(default_factory=dict)
    """Samples seen, by task."""
    best_step: int | None = None
    """The step of the best validation."""
    best_value: float | None = None
    """Its value: the mean of the tasks' scores, from 0 to 1."""
    nonfinite: int = 0
    """Steps in a row, up to this one, whose loss or gradient was not finite."""
    progress: dict[str, Any] = field(default_factory=dict)
    """The journal's running numbers."""

    @classmethod
    def read(cls, checkpoint: Path) -> State:
        """The state of a checkpoint folder."""
        return cls(**json.loads((checkpoint / "state.json").read_text("utf-8")))

    def write(self, checkpoint: Path) -> None:
        """Write it into a checkpoint folder."""
        (checkpoint / "state.json").write_text(
            json.dumps(asdict(self), indent=1, ensure_ascii=False), "utf-8"
        )


class Checkpoints:
    """The checkpoints of a run: `checkpoints/step-XXXXXXXX`, and the links `best` and `last` beside
    that folder.

    A checkpoint is written under a name that ends in `.partial`, forced to disk and renamed; so a
    folder with a plain name is whole. Deleting goes the same way back.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self.run, self.keep = run, keep
        self.folder = run / "checkpoints"

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """The steps of the whole checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        found = (NAME.fullmatch(entry.name) for entry in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> Path | None:
        """The newest whole checkpoint."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def save(self, state: State, write: Callable[[Path], None]) -> None:
        """Write the checkpoint of `state`; `write(folder)` puts model and optimiser into it.

        Raises TrainingError when the disk is full or the folder cannot be written; earlier
        checkpoints stay whole.
        """
        target = self.path(state.step)
        partial = target.with_name(target.name + PARTIAL)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write(partial)
            state.write(partial)
            sync_tree(partial)
            os.rename(partial, target)
            sync(self.folder)
            self.clean(state)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise TrainingError(self._failure(state.step, error)) from error

    def clean(self, state: State) -> None:
        """Point the links where `state` says and delete what is neither kept nor best, and what was
        never finished.

        Also the repair after a crash between a checkpoint's rename and its links.
        """
        if state.step:
            self._link_and_prune(state)
        for leftover in self.folder.glob(f"*{PARTIAL}"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _link_and_prune(self, state: State) -> None:
        kept = {*self.steps()[-self.keep :], state.step}
        if state.best_step is not None:
            kept.add(state.best_step)
            self._link("best", state.best_step)
        self._link("last", state.step)
        for step in set(self.steps()) - kept:
            # Out of sight first: a crash half way through the deletion must not leave a plain name.
            os.rename(self.path(step), self.path(step).with_name(self.path(step).name + PARTIAL))

    def _link(self, name: str, step: int) -> None:
        temporary = self.run / f"{name}{PARTIAL}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self.path(step).relative_to(self.run), target_is_directory=True)
        os.replace(temporary, self.run / name)
        sync(self.run)

    def _failure(self, step: int, error: Exception) -> str:
        newest = self.newest()
        kept = f"{newest} is whole" if newest else "no checkpoint was written before"
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        cause = f"no space left on the disk of {self.run}" if full else str(error)
        remedy = f"{'free some space' if full else 'mend the cause'} and continue with --resume"
        return f"the checkpoint of step {step} could not be written: {cause}; {kept}; {remedy}"


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Force all files below a folder, and the folders themselves, to disk."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(place) / name)
        sync(Path(place))

"""Atomic checkpoints: whatever moment the machine stops at, a checkpoint is complete or absent."""

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
"""Suffix of files and folders that are being written or deleted."""


@dataclass
class TrainingState:
    """The state of a run besides weights and optimizer. Random numbers need no state: they are
    drawn from (seed, step)."""

    step: int = 0
    """Number of finished steps, those without an update included."""
    seed: int = 0
    """Seed of the run."""
    samples: dict[str, int] = field(default_factory=dict)
    """Number of samples seen, by task."""
    best_step: int | None = None
    """Step of the best validation."""
    best_value: float | None = None
    """Mean of the tasks' scores in the best validation, from 0 to 1."""
    nonfinite: int = 0
    """Number of consecutive steps, up to the last one, without a finite loss and gradient."""
    logger: dict[str, Any] = field(default_factory=dict)
    """State of the run's logger."""

    @classmethod
    def read(cls, checkpoint: Path) -> TrainingState:
        """Read the state from a checkpoint folder."""
        return cls(**json.loads((checkpoint / "state.json").read_text("utf-8")))

    def write(self, checkpoint: Path) -> None:
        """Write the state into a checkpoint folder."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (checkpoint / "state.json").write_text(text, "utf-8")


class Checkpoints:
    """The checkpoints of a run, `checkpoints/step-XXXXXXXX`, and the links `best` and `last` in the
    run folder.

    A checkpoint is written into a folder whose name ends in `.partial`, forced to disk and renamed.
    A folder without that suffix is therefore complete. Deletion renames first as well.
    """

    def __init__(self, run: Path, save_total_limit: int) -> None:
        self.run, self.save_total_limit = run, save_total_limit
        self.folder = run / "checkpoints"

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in ascending order."""
        if not self.folder.is_dir():
            return []
        found = (NAME.fullmatch(entry.name) for entry in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> Path | None:
        """The newest complete checkpoint."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def save(self, state: TrainingState, write: Callable[[Path], None]) -> None:
        """Write the checkpoint of `state`. `write(folder)` writes model and optimizer.

        Raises TrainingError if the disk is full or the folder cannot be written; earlier
        checkpoints stay complete.
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

    def clean(self, state: TrainingState) -> None:
        """Update the links, and delete incomplete checkpoints and those beyond `save_total_limit`.

        This also repairs the run folder after a crash between the rename of a checkpoint and the
        update of its links.
        """
        if state.step:
            self._link_and_prune(state)
        for leftover in self.folder.glob(f"*{PARTIAL}"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _link_and_prune(self, state: TrainingState) -> None:
        kept = {*self.steps()[-self.save_total_limit :], state.step}
        if state.best_step is not None:
            kept.add(state.best_step)
            self._link("best", state.best_step)
        self._link("last", state.step)
        for step in set(self.steps()) - kept:
            # Rename first: a crash during the deletion must not leave a complete-looking folder.
            folder = self.path(step)
            os.rename(folder, folder.with_name(folder.name + PARTIAL))

    def _link(self, name: str, step: int) -> None:
        temporary = self.run / f"{name}{PARTIAL}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self.path(step).relative_to(self.run), target_is_directory=True)
        os.replace(temporary, self.run / name)
        sync(self.run)

    def _failure(self, step: int, error: Exception) -> str:
        newest = self.newest()
        kept = f"{newest} is complete" if newest else "there is no earlier checkpoint"
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        cause = f"no space left on the disk of {self.run}" if full else str(error)
        remedy = f"{'free some space' if full else 'fix the cause'} and continue with --resume"
        return f"the checkpoint of step {step} could not be written: {cause}; {kept}; {remedy}"


def write_atomically(file: Path, text: str) -> None:
    """Write a text file so that it is complete or absent."""
    temporary = file.with_name(file.name + PARTIAL)
    temporary.write_text(text, "utf-8")
    sync(temporary)
    os.replace(temporary, file)


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Force a folder and all files and folders in it to disk."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(parent) / name)
        sync(Path(parent))

"""Atomic checkpoints: whatever moment the machine stops at, a checkpoint is complete or absent."""

from __future__ import annotations

import errno
import json
import os
import re
import warnings
from collections import ChainMap
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from safetensors import SafetensorError

from skillweave.config import ConfigError
from skillweave.config.errors import reading
from skillweave.model.folders import CHECKPOINTS_FOLDER
from skillweave.storage import (
    CHECKSUMS_FILE,
    PARTIAL,
    Damaged,
    add_checksums,
    checksums,
    final_name,
    partial_name,
    read_checksums,
    read_json,
    remove,
    replacing,
    sync,
    sync_tree,
    verify,
    write_json,
)
from skillweave.training.errors import TrainingError
from skillweave.training.tensor_files import written_by
from skillweave.weights.adapters import REFERENCE_FILE

if TYPE_CHECKING:
    from skillweave.training.run_store import RunStore

CANNOT_WRITE = (OSError, SafetensorError)
NAME = re.compile(r"step-(\d{8,})")
STATE_FILE = "state.json"
UNCHECKED = {CHECKSUMS_FILE, REFERENCE_FILE}
"""Files without a checksum: that of a tuned model's base may be corrected by hand."""
VALIDATION_FILE = "validation.json"
"""What the validation of a checkpoint changed in its state. The checkpoint is written before."""


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
    validated: int = 0
    """Step of the last validation."""
    nonfinite: int = 0
    """Number of consecutive steps, up to the last one, without a finite loss and gradient."""
    without_update: int = 0
    """Number of all steps without a finite loss and gradient."""
    spikes: int = 0
    """Number of steps that were left out because their loss was a spike."""
    losses: dict[str, list[float]] = field(default_factory=dict)
    """What is known of each task's losses, to find spikes."""
    steering: dict[str, Any] = field(default_factory=dict)
    """State of what changes the weights of the tasks."""
    logger: dict[str, Any] = field(default_factory=dict)
    """State of the run's logger."""
    processes: int = 0
    """Number of processes; 0 if it is not known."""

    @classmethod
    def read(cls, checkpoint: Path) -> TrainingState:
        """Read the state from a checkpoint folder. Raises ConfigError for the state of another
        version."""
        state, validation = checkpoint / STATE_FILE, checkpoint / VALIDATION_FILE
        with reading(state, "the state of a run"):
            return cls(**(json.loads(state.read_bytes()) | read_json(validation)))

    def write(self, checkpoint: Path) -> None:
        """Write the state into a checkpoint folder."""
        write_json(checkpoint / STATE_FILE, asdict(self))


class Checkpoints:
    """The checkpoints of a run, `checkpoints/step-XXXXXXXX`, and the links `best` and `last` in the
    run folder.

    A checkpoint is written into a folder whose name ends in `.partial`, forced to disk and renamed.
    A folder without that suffix is therefore complete. Deletion renames first as well. Checksums
    show later damage. `store`: gets a copy of the run with each checkpoint.
    """

    def __init__(self, run: Path, save_total_limit: int = 1, store: RunStore | None = None) -> None:
        self.run, self.save_total_limit, self.store = run, save_total_limit, store
        self.folder = run / CHECKPOINTS_FOLDER

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

    def newest_undamaged(self) -> Path:
        """The newest checkpoint whose files have the checksums that were stored. Raises ConfigError
        that lists what is damaged if there is none."""
        faults = []
        for step in reversed(self.steps()):
            try:
                if not (self.path(step) / CHECKSUMS_FILE).is_file():
                    raise Damaged(f"{self.path(step)}: has no {CHECKSUMS_FILE}")
                verify(self.path(step))
            except Damaged as error:
                faults.append(f"  - {error}")
                continue
            for fault in faults:
                warnings.warn(fault.removeprefix("  - "), stacklevel=2)
            return self.path(step)
        raise ConfigError(
            f"{self.run}: every checkpoint is damaged; restore one, or train again with another"
            " output\n" + "\n".join(faults)
        )

    def set_aside_after(self, step: int) -> list[Path]:
        """Rename the damaged checkpoints after `step`, so that the resumed run can write its own.
        Returns their new paths."""
        moved = []
        for later in (one for one in self.steps() if one > step):
            names = (f"damaged-{n}-{self.path(later).name}" for n in count(1))
            aside = next(self.folder / n for n in names if not (self.folder / n).exists())
            os.rename(self.path(later), aside)
            moved.append(aside)
        return moved

    def save(self, state: TrainingState, write: Callable[[Path], None]) -> None:
        """Write the checkpoint of `state`. `write(folder)` writes model and optimizer.

        Raises TrainingError if the disk is full or the folder cannot be written; earlier
        checkpoints stay complete.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.path(state.step)) as partial:
                partial.mkdir()
                write(partial)
                self._describe(state, partial)
            self._publish(state)
        except CANNOT_WRITE as error:
            raise TrainingError(self._failure(state.step, error)) from error

    def save_together(
        self,
        state: TrainingState,
        write: Callable[[Path], None],
        complete: Callable[[Path], None],
        group: dist.ProcessGroup,
    ) -> None:
        """As `save`, by all processes of a group: each writes its own files with `write`, then the
        first one with `complete`. Raises TrainingError on all of them if one cannot."""
        first = dist.get_rank(group) == 0
        final = self.path(state.step)
        shared = [partial_name(final)]
        dist.broadcast_object_list(shared, group_src=0, group=group)
        (partial,) = shared
        try:
            with self._failing_together(state.step, group):
                if first:
                    remove(partial)
                    partial.mkdir(parents=True)
            with self._failing_together(state.step, group):
                write(partial)
            sums: list[dict[str, str]] = [{} for _ in range(dist.get_world_size(group))]
            own = written_by(dist.get_rank(group), partial)
            found = checksums(partial, [file.relative_to(partial).as_posix() for file in own])
            dist.all_gather_object(sums, found, group=group)
            with self._failing_together(state.step, group):
                if first:
                    complete(partial)
                    self._describe(state, partial, dict(ChainMap(*sums)))
                    sync_tree(partial)
                    os.replace(partial, final)
                    sync(self.folder)
                    self._publish(state)
        except BaseException:
            if first:
                remove(partial)
            raise

    @contextmanager
    def _failing_together(self, step: int, group: dist.ProcessGroup) -> Generator[None]:
        """Raise TrainingError on all processes if the block fails on one."""
        failure = ""
        try:
            yield
        except CANNOT_WRITE as error:
            failure = self._failure(step, error)
        except TrainingError as error:
            failure = str(error)
        failures = [failure] * dist.get_world_size(group)
        dist.all_gather_object(failures, failure, group=group)
        for failure in filter(None, failures):
            raise TrainingError(failure)

    @staticmethod
    def _describe(
        state: TrainingState, folder: Path, known: Mapping[str, str] | None = None
    ) -> None:
        """Write the state, and the checksums of all files that have none. `known`: file →
        checksum."""
        state.write(folder)
        files = (file for file in folder.rglob("*") if file.is_file())
        names = {file.relative_to(folder).as_posix() for file in files}
        known = {name: digest for name, digest in (known or {}).items() if name in names}
        add_checksums(folder, names - UNCHECKED - read_checksums(folder).keys(), known)

    def save_validation(self, state: TrainingState) -> None:
        """Add the result of a validation to the checkpoint of the same step. Raises TrainingError
        as `save` does."""
        folder = self.path(state.step)
        names = ("best_step", "best_value", "validated", "steering")
        try:
            write_json(folder / VALIDATION_FILE, {name: getattr(state, name) for name in names})
            add_checksums(folder, [VALIDATION_FILE])
            self._publish(state)
        except OSError as error:
            raise TrainingError(self._failure(state.step, error)) from error

    def _publish(self, state: TrainingState) -> None:
        """Make a complete checkpoint the last one, here and in the store."""
        self.clean(state)
        if self.store:
            self.store.push(self.run, self.save_total_limit)

    def clean(self, state: TrainingState) -> None:
        """Update the links, and delete incomplete checkpoints and those beyond `save_total_limit`.

        This also repairs the run folder after a crash between the rename of a checkpoint and the
        update of its links.
        """
        if state.step:
            self._link_and_prune(state)
        links = (file for file in self.run.iterdir() if final_name(file.name) in ("best", "last"))
        for file in [*self.folder.rglob(f".*{PARTIAL}"), *links]:
            if final_name(file.name) != file.name:
                remove(file)

    def _link_and_prune(self, state: TrainingState) -> None:
        kept = {*self.steps()[-self.save_total_limit :], state.step}
        if state.best_step is not None and not self.path(state.best_step).is_dir():
            state.best_step = state.best_value = None  # a damaged one, or removed by the user
        if state.best_step is not None:
            kept.add(state.best_step)
            self._link("best", state.best_step)
        elif (self.run / "best").is_symlink():
            (self.run / "best").unlink()
        self._link("last", state.step)
        for step in set(self.steps()) - kept:
            # Rename first: a crash during the deletion must not leave a complete-looking folder.
            os.rename(self.path(step), partial_name(self.path(step)))

    def _link(self, name: str, step: int) -> None:
        link = self.run / name
        temporary = partial_name(link)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self.path(step).relative_to(self.run), target_is_directory=True)
        if link.is_dir() and not link.is_symlink():  # a copy that another program made of a link
            os.rename(link, link.with_name(f"{name}.copied-{step}"))
        os.replace(temporary, link)
        sync(self.run)

    def _failure(self, step: int, error: Exception) -> str:
        newest = self.newest()
        kept = f"{newest} is complete" if newest else "there is no checkpoint"
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        cause = f"no space left on the disk of {self.run}" if full else str(error)
        remedy = "free some space" if full else "fix the cause"
        again = "continue with --resume" if newest else "train again"
        return (
            f"the checkpoint of step {step} could not be written: {cause}; {kept}; {remedy} and"
            f" {again}"
        )

"""Exceptions that end a run early."""

from __future__ import annotations

from pathlib import Path


class TrainingError(RuntimeError):
    """The run cannot continue. The message gives the cause, what is saved, and the remedy."""

    exit_status = 2


class Interrupted(Exception):
    """A signal ended the run after a step, and the checkpoint of that step is written.

    `folder`: the run folder. `step`: the last step. `exit_status`: of a
    command (128 and the number of the signal: 130 for SIGINT, 143 for SIGTERM).
    """

    def __init__(self, folder: Path, step: int, signal: int) -> None:
        self.folder, self.step, self.exit_status = folder, step, 128 + signal
        resume = f"skillweave train {folder / 'recipe.yaml'} --resume"
        super().__init__(
            f"stopped after step {step}; its checkpoint is written. Continue with: {resume}"
        )

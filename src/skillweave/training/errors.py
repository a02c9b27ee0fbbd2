"""The two ways in which a run ends early."""

from __future__ import annotations

from pathlib import Path


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says why, what is kept and what to do."""


class Interrupted(Exception):
    """A signal ended the run at a step's end, after its checkpoint was written.

    `folder` is the run's, `step` the last step done; a command line exits with `code` (130 for
    SIGINT, 143 for SIGTERM).
    """

    def __init__(self, folder: Path, step: int, signal: int) -> None:
        self.folder, self.step, self.code = folder, step, 128 + signal
        resume = f"skillweave train {folder / 'recipe.yaml'} --resume"
        super().__init__(
            f"stopped after step {step}; its checkpoint is written. Continue with: {resume}"
        )

"""Training: the loop, optimizer, processes, checkpoints, logs and run folder."""

from skillweave.training.errors import Interrupted, TrainingError
from skillweave.training.run import train

__all__ = ["Interrupted", "TrainingError", "train"]

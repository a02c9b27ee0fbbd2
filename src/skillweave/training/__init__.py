"""Training: the loop and what surrounds it — optimiser, processes, checkpoints, journal and run
folder."""

from skillweave.training.errors import Interrupted, TrainingError
from skillweave.training.run import train

__all__ = ["Interrupted", "TrainingError", "train"]

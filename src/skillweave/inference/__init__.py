"""Using a saved model: answers and vectors of raw inputs."""

from skillweave.inference.generating import generate, open_writer
from skillweave.inference.loading import choose_device, load, open_run, run_recipe, with_tuning
from skillweave.inference.predictor import Predictor, encode, predict
from skillweave.inference.writing import TextWriter

__all__ = [
    "Predictor",
    "TextWriter",
    "choose_device",
    "encode",
    "generate",
    "load",
    "open_run",
    "open_writer",
    "predict",
    "run_recipe",
    "with_tuning",
]

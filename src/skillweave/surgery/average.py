"""Averaging: the mean of several models with the same configuration, such as the last checkpoints
of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from skillweave.config import ConfigError
from skillweave.model.folders import model_folder
from skillweave.model.model import Model
from skillweave.weights.files import require_equal


def average(folders: Sequence[str | Path]) -> Model:
    """A model whose weights are the means over all folders, computed in float64. Everything else is
    that of the first model.

    `folders`: models or runs; of a run, the best checkpoint. Raises ConfigError for fewer than two
    models or for models of another configuration or tokenizer, WeightsError for weights that do not
    fit.
    """
    if len(folders) < 2:
        raise ConfigError(
            f"{len(folders)} model; a mean needs two or more, such as runs/NAME/checkpoints/step-*"
        )
    first = Model.from_pretrained(model_folder(folders[0]))
    total = {name: x.double() for name, x in first.state_dict().items()}
    for folder in folders[1:]:
        other = Model.from_pretrained(model_folder(folder))
        if other.config != first.config or other.assets != first.assets:
            raise ConfigError(
                f"{folder} cannot be averaged with {folders[0]}: its configuration or tokenizer"
                " differs"
            )
        state = other.state_dict()
        require_equal(total, state, str(folder))
        total = {name: x + state[name].double() for name, x in total.items()}
    means = {
        name: (x / len(folders)).to(first.state_dict()[name].dtype) for name, x in total.items()
    }
    with torch.no_grad():
        first.load_state_dict(means)
    return first


def checkpoints_of(folders: Sequence[str | Path]) -> list[Path]:
    """The folders, or all checkpoints of a single run. Raises ConfigError for a run with fewer than
    two."""
    paths = [Path(folder) for folder in folders]
    if len(paths) > 1:
        return paths
    found = sorted((paths[0] / "checkpoints").glob("step-*[0-9]"))
    if len(found) < 2:
        raise ConfigError(
            f"{paths[0]}: {len(found)} checkpoints, and a mean is of two or more; train with a"
            " larger training.save_total_limit"
        )
    return found

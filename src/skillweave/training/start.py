"""Begin from another model's weights: pretraining, then fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from skillweave.config import ConfigError
from skillweave.config.folders import model_folder
from skillweave.weights import compare

SHOWN = 6
"""Names shown of each kind; the others are counted."""


def start_folder(start_from: str) -> Path:
    """The model folder that a recipe starts from. Raises ConfigError when there is none."""
    try:
        return model_folder(start_from)
    except ConfigError as error:
        raise ConfigError(f"start_from: {error}") from None


def take_weights(model: nn.Module, given: Mapping[str, Tensor], where: str) -> str:
    """Copy the weights whose name and shape agree; the report of what was taken, what stays fresh and what disagreed.

    Raises ConfigError when not one agrees.
    """
    own = model.state_dict()
    missing, unexpected, shapes = compare(own, given)
    taken = [name for name in own if name in given and own[name].shape == given[name].shape]
    if not taken:
        raise ConfigError(f"start_from {where}: no weight there agrees with this model in name and shape")
    model.load_state_dict({name: given[name] for name in taken}, strict=False)
    numbers = sum(own[name].numel() for name in taken)
    lines = [f"start_from {where}: took {len(taken)} of {len(own)} tensors ({numbers / 1e6:.2f}M numbers)"]
    lines += [f"  {title}: {_shown(names)}" for title, names in _kinds(missing, shapes, unexpected).items() if names]
    return "\n".join(lines)


def _kinds(missing: Sequence[str], shapes: Sequence[str], unexpected: Sequence[str]) -> dict[str, Sequence[str]]:
    return {"fresh, not there": missing, "fresh, another shape there": shapes, "there, not used": unexpected}


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

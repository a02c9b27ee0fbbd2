"""Initial weights from another model (`start_from`): pretraining, then fine-tuning."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.embeddings.position import PositionEmbedding
from skillweave.config import ConfigError
from skillweave.model.config import ModelConfig
from skillweave.model.folders import model_folder
from skillweave.model.parts import differences
from skillweave.weights.files import compare

SHARED = re.compile(r"shared\.(\w+\..+)")
PRIVATE = re.compile(r"embeddings\.\w+\.content\.(\w+\..+)")
"""Names of an embedding's weights that the streams share, and of those private to a stream."""
POOLER = "targets.classification.pooler.", "targets.pooled.pooler."
"""BERT's pooler in a classifier, and in a model converted without a classifier."""
MAX_SHOWN = 6
"""Number of names listed in a report; the rest are counted."""


def start_folder(start_from: str) -> Path:
    """The model folder that a recipe starts from. Raises ConfigError if there is none."""
    try:
        return model_folder(start_from)
    except ConfigError as error:
        raise ConfigError(f"start_from: {error}") from None


def require_alike(own: ModelConfig, other: ModelConfig, where: str) -> None:
    """Raise ConfigError for modules whose weights have the same shapes in both models and mean
    something else."""
    if told := [f"{path}: {', '.join(d)}" for path, d in sorted(differences(own, other).items())]:
        raise ConfigError(
            f"start_from {where}: its weights mean something else in this model: {'; '.join(told)};"
            f" take its settings over with `model: {{preset: {where}}}`, or leave start_from out"
        )
    for name, target in own.targets.items():
        known = other.targets.get(name)
        for field in target.fitted if type(known) is type(target) else ():
            here, there = getattr(target, field), getattr(known, field)
            if isinstance(here, list) and len(here) == len(there) and here != there:
                warnings.warn(
                    f"start_from {where}: targets.{name} begins with the weights of other {field}:"
                    f" {_listed([*map(repr, there)])} there, {_listed([*map(repr, here)])} here",
                    stacklevel=2,
                )


def copy_weights(model: nn.Module, source: Mapping[str, Tensor], where: str) -> str:
    """Copy the weights whose name and shape agree into the model, and return a report.

    A weight that `source` lacks is also looked up under its `other_names`. A longer table of
    learned positions is cut to the length of the model's table. Raises ConfigError if no weight
    agrees.
    """
    own = model.state_dict()
    source = _rename(own, source)
    longer = _longer_tables(model, own, source)
    source |= {name: source[name][: len(own[name])] for name in longer}
    missing, unexpected, shapes = compare(own, source)
    copied = [name for name in own if name in source and own[name].shape == source[name].shape]
    if not copied:
        raise ConfigError(
            f"start_from {where}: no weight there has the name and shape of one in this model"
        )
    model.load_state_dict({name: source[name] for name in copied}, strict=False)
    numbers = sum(own[name].numel() for name in copied)
    lines = [
        f"start_from {where}: copied {len(copied)} of {len(own)} tensors ({numbers / 1e6:.2f}M"
        " numbers)"
    ]
    sections = {
        "only the first positions": longer,
        "new, absent there": missing,
        "new, another shape there": shapes,
        "not used": unexpected,
    }
    lines += [f"  {title}: {_listed(names)}" for title, names in sections.items() if names]
    return "\n".join(lines)


def other_names(name: str) -> Iterator[str]:
    """Names that a weight may have in a model that shares other embeddings or has other targets."""
    if match := SHARED.fullmatch(name):
        yield from (f"embeddings.{modality.value}.content.{match[1]}" for modality in Modality)
    if match := PRIVATE.fullmatch(name):
        yield f"shared.{match[1]}"
    classifier, pooled = POOLER
    if name.startswith(classifier):
        yield name.replace(classifier, pooled)


def _rename(own: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`source`, in which weights under another name have the model's name."""
    found, used = dict(source), set()
    for name in own.keys() - source.keys():
        for other in other_names(name):
            if other in source and other not in own and source[other].shape == own[name].shape:
                found[name] = source[other]
                used.add(other)
                break
    return {name: x for name, x in found.items() if name not in used}


def _longer_tables(
    model: nn.Module, own: Mapping[str, Tensor], source: Mapping[str, Tensor]
) -> list[str]:
    """Names of the tables of learned positions that have more rows in `source`."""
    tables = [
        f"{path}.table.weight"
        for path, module in model.named_modules()
        if isinstance(module, PositionEmbedding)
    ]
    return sorted(
        name
        for name in tables
        if name in source
        and len(source[name]) > len(own[name])
        and source[name].shape[1:] == own[name].shape[1:]
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more

"""Begin from another model's weights: pretraining, then fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from skillweave.config import ConfigError
from skillweave.model.folders import model_folder
from skillweave.weights.files import compare

OTHER_NAMES = {
    "shared.word.": ("embeddings.text.content.word.", "embeddings.code.content.word."),
    "embeddings.text.content.word.": ("shared.word.",),
    "embeddings.code.content.word.": ("shared.word.",),
    "targets.classification.pooler.": ("targets.pooled.pooler.",),
}
"""Part of a weight's name → what stands there in another model: words that streams share or do not,
BERT's pooler."""
POSITIONS = ".positions.position.table.weight"
SHOWN = 6
"""Names shown of each kind; the others are counted."""


def start_folder(start_from: str) -> Path:
    """The model folder that a recipe starts from. Raises ConfigError when there is none."""
    try:
        return model_folder(start_from)
    except ConfigError as error:
        raise ConfigError(f"start_from: {error}") from None


def take_weights(model: nn.Module, given: Mapping[str, Tensor], where: str) -> str:
    """Copy the weights whose name and shape agree; the report of what was taken, what stays fresh
    and what disagreed.

    What stands under another name is taken too (`OTHER_NAMES`), and of learned positions as many as
    both have. Raises ConfigError when not one agrees.
    """
    own = model.state_dict()
    given = _under_own_names(own, given)
    given, cut = _cut_positions(own, given)
    missing, unexpected, shapes = compare(own, given)
    taken = [name for name in own if name in given and own[name].shape == given[name].shape]
    if not taken:
        raise ConfigError(
            f"start_from {where}: no weight there agrees with this model in name and shape"
        )
    model.load_state_dict({name: given[name] for name in taken}, strict=False)
    numbers = sum(own[name].numel() for name in taken)
    lines = [
        f"start_from {where}: took {len(taken)} of {len(own)} tensors ({numbers / 1e6:.2f}M"
        " numbers)"
    ]
    lines += [f"  the first positions of those there: {_shown(cut)}"] if cut else []
    lines += [
        f"  {title}: {_shown(names)}"
        for title, names in _kinds(missing, shapes, unexpected).items()
        if names
    ]
    return "\n".join(lines)


def _under_own_names(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is given, and what stands under another name in place of what is absent."""
    found, used = dict(given), set()
    for name in own.keys() - given.keys():
        places = [
            name.replace(part, other)
            for part, others in OTHER_NAMES.items()
            for other in others
            if part in name
        ]
        there = (
            place
            for place in places
            if place in given and place not in own and given[place].shape == own[name].shape
        )
        if place := next(there, None):
            found[name] = given[place]
            used.add(place)
    return {name: x for name, x in found.items() if name not in used}


def _cut_positions(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Tables of positions with as many rows as here, and the names of those that were cut."""
    longer = [
        name
        for name in own.keys() & given.keys()
        if name.endswith(POSITIONS) and len(given[name]) > len(own[name])
    ]
    longer = [name for name in longer if given[name].shape[1:] == own[name].shape[1:]]
    return {**given, **{name: given[name][: len(own[name])] for name in longer}}, sorted(longer)


def _kinds(
    missing: Sequence[str], shapes: Sequence[str], unexpected: Sequence[str]
) -> dict[str, Sequence[str]]:
    return {
        "fresh, not there": missing,
        "fresh, another shape there": shapes,
        "there, not used": unexpected,
    }


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

"""The key map: rules that say how one tensor of ours is made of theirs, read in both directions.

In a rule `{i}` stands for a layer's number and `{e}` for an expert's. A rule without an ending
holds for `.weight` and `.bias`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from skillweave.weights.files import WeightsError

KINDS = r"(?P<kind>\.weight|\.bias)?"
SHOWN = 5
"""Names shown in an error; the others are counted."""


class Source(NamedTuple):
    """What one of our tensors is made of: theirs of these names, one after the other along the
    first dimension.

    `transposed`: theirs are stored input first (GPT-2). `stacked`: theirs has one more dimension
    before the others, which `{e}` counts; without it, ours is row `index`. `reshaped`: theirs has
    the same numbers in another shape. `interleaved`: theirs has the query, key and value of one
    head after those of another (BLOOM).
    """

    names: tuple[str, ...]
    transposed: bool = False
    stacked: bool = False
    reshaped: bool = False
    interleaved: bool = False
    index: int = 0


class Rule(NamedTuple):
    """Our name, and where it may come from: the first source whose names are there counts."""

    ours: str
    sources: tuple[Source, ...]


def rule(ours: str, *sources: str | Source) -> Rule:
    """A rule; a string is the name of a single tensor or module."""
    return Rule(
        ours, tuple(joined(source) if isinstance(source, str) else source for source in sources)
    )


def joined(*names: str) -> Source:
    """Tensors one after the other: query, key and value, or gate and value."""
    return Source(names)


def transposed(*names: str) -> Source:
    """Tensors stored input first."""
    return Source(names, transposed=True)


def stacked(name: str, index: int = 0) -> Source:
    """One expert of a tensor that holds them all, or its row `index`."""
    return Source((name,), stacked=True, index=index)


def reshaped(name: str) -> Source:
    """The same numbers in another shape."""
    return Source((name,), reshaped=True)


def interleaved(name: str) -> Source:
    """Query, key and value, head by head."""
    return Source((name,), interleaved=True)


class Step(NamedTuple):
    """One of our tensors and the tensors of theirs that make it; `index`: which of a stack;
    `heads`: of attention."""

    ours: str
    theirs: tuple[str, ...]
    source: Source
    index: int
    heads: int


def plan(
    rules: Iterable[Rule], ours: Iterable[str], theirs: Collection[str], heads: int = 1
) -> list[Step]:
    """A step for each of our names. Raises WeightsError for one that no rule covers, which is a
    fault of the family."""
    patterns = [(pattern(one.ours), one) for one in rules]
    return [_step(name, patterns, theirs, heads) for name in ours]


def pattern(name: str) -> re.Pattern[str]:
    """What matches a rule's name, with or without its ending."""
    text = re.escape(name).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{e\}", r"(?P<e>\d+)")
    return re.compile(text + KINDS)


def _step(
    name: str, patterns: list[tuple[re.Pattern[str], Rule]], theirs: Collection[str], heads: int
) -> Step:
    for regex, one in patterns:
        if found := regex.fullmatch(name):
            numbers = {key: value for key, value in found.groupdict().items() if key != "kind"}
            steps = []
            for source in one.sources:
                full = tuple(
                    text.format(**numbers) + (found["kind"] or "") for text in source.names
                )
                steps.append(Step(name, full, source, int(numbers.get("e") or source.index), heads))
            return next(
                (step for step in steps if all(full in theirs for full in step.theirs)), steps[0]
            )
    raise WeightsError(f"{name}: the family has no counterpart for this weight")


def take(step: Step, read: Callable[[str], Tensor], shape: torch.Size) -> Tensor:
    """Our tensor of theirs. Raises WeightsError where the shapes do not go together."""
    parts = [read(name) for name in step.theirs]
    if step.source.stacked:
        parts = [part[step.index].clone() for part in parts]  # a view would hold the whole stack
    if step.source.transposed:
        parts = [part.t() for part in parts]
    if step.source.interleaved and not len(parts[0]) % (3 * step.heads):
        parts = [
            part.unflatten(0, (step.heads, 3, -1)).transpose(0, 1).flatten(0, 2) for part in parts
        ]
    x = (
        torch.cat(parts)
        if len(parts) > 1 and len({part.shape[1:] for part in parts}) == 1
        else parts[0]
    )
    if step.source.reshaped and x.numel() == shape.numel():
        x = x.reshape(shape)
    if x.shape != shape:
        found = " and ".join(
            f"{name} is {tuple(part.shape)}" for name, part in zip(step.theirs, parts, strict=True)
        )
        raise WeightsError(
            f"wrong shape: {found}, but the configuration makes {tuple(shape)} of it ({step.ours})"
        )
    return x.contiguous()


def give(
    steps: Iterable[Step], ours: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Their tensors of ours; `shapes`: of theirs. What they keep in one stack is put together
    again."""
    found: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for step in steps:
        x = ours[step.ours]
        if step.source.reshaped:
            x = x.reshape(shapes[step.theirs[0]])
        if step.source.interleaved:
            x = x.unflatten(0, (3, step.heads, -1)).transpose(0, 1).flatten(0, 2)
        dimension = -1 if step.source.transposed else int(step.source.stacked)
        pieces = (
            x.split([shapes[name][dimension] for name in step.theirs])
            if len(step.theirs) > 1
            else [x]
        )
        for name, piece in zip(step.theirs, pieces, strict=True):
            piece = piece.t() if step.source.transposed else piece
            if step.source.stacked:
                stacks.setdefault(name, {})[step.index] = piece
            else:
                found[name] = piece.contiguous()
    return found | {
        name: torch.stack([parts[i] for i in sorted(parts)]) for name, parts in stacks.items()
    }


def covered(rules: Iterable[Rule], names: Collection[str]) -> int:
    """How many of their names a family's rules speak of."""
    known = [pattern(name) for one in rules for source in one.sources for name in source.names]
    return sum(any(regex.fullmatch(name) for regex in known) for name in names)


def listed(names: Collection[str]) -> str:
    """Some names, and how many more."""
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

"""Key maps: how weights are made of the tensors of another library, in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from skillweave.interop.rules import Rules, Source, list_sources
from skillweave.weights.files import WeightsError

ENDING = r"(?P<ending>\.weight|\.bias)?"
SHOWN = 5
"""Number of names that an error message lists; it counts the others."""


class WeightMapping(NamedTuple):
    """A weight and its source, with the numbers of layer and expert filled in."""

    name: str
    source: Source
    heads: int
    """Number of attention heads of the model."""


@dataclass(frozen=True)
class KeyMap:
    """The rules for a model.

    `tied`: name of an external tensor → name of the tensor that it must be equal to. `ignored`:
    regular expressions of external tensors that have no counterpart and are not read. `computed`:
    name of an external tensor that is not learned → how it is made from its shape.
    """

    rules: Rules
    tied: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    computed: Mapping[str, Callable[[torch.Size], Tensor]] = field(default_factory=dict)

    def map_weights(
        self, weights: Iterable[str], external: Collection[str], heads: int = 1
    ) -> list[WeightMapping]:
        """The mapping of each weight, given the names of all `external` tensors.

        Raises WeightsError for a weight that no rule covers.
        """
        rules = [(_pattern(name), list_sources(found)) for name, found in self.rules.items()]
        return [WeightMapping(name, _find_source(name, rules, external), heads) for name in weights]

    def count_known(self, external: Iterable[str]) -> int:
        """The number of external tensors that a rule mentions."""
        sources = [source for found in self.rules.values() for source in list_sources(found)]
        patterns = [_pattern(name) for source in sources for name in source.names]
        return sum(any(pattern.fullmatch(name) for pattern in patterns) for name in external)


def _pattern(name: str) -> re.Pattern[str]:
    """Matches the names that a rule's name stands for."""
    text = re.escape(name).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{e\}", r"(?P<e>\d+)")
    return re.compile(text + ENDING)


def _find_source(
    name: str,
    rules: Iterable[tuple[re.Pattern[str], list[Source]]],
    external: Collection[str],
) -> Source:
    for pattern, sources in rules:
        if found := pattern.fullmatch(name):
            filled = [_fill_in(source, found) for source in sources]
            complete = (source for source in filled if all(one in external for one in source.names))
            return next(complete, filled[0])
    raise WeightsError(f"{name}: no rule of the key map covers this weight")


def _fill_in(source: Source, found: re.Match[str]) -> Source:
    numbers = found.groupdict()
    ending = numbers.pop("ending") or ""
    source = source._replace(index=int(numbers.get("e") or source.index))
    return source.renamed(lambda name: name.format(**numbers) + ending)


def import_weight(
    mapping: WeightMapping, read: Callable[[str], Tensor], shape: torch.Size
) -> Tensor:
    """A weight, made of external tensors. Raises WeightsError if it does not have `shape`."""
    names = mapping.source.names
    tensors = [read(name) for name in names]
    for name, one in zip(names, tensors, strict=True):
        if not one.is_floating_point():
            raise WeightsError(
                f"{name} holds integers ({one.dtype}), as quantized models do; save the model with"
                " floating-point weights"
            )
    x = _combine(tensors, mapping, shape)
    if x.shape != shape:
        found = " and ".join(
            f"{name} is {tuple(one.shape)}" for name, one in zip(names, tensors, strict=True)
        )
        raise WeightsError(
            f"wrong shape: {found}, but the configuration needs {tuple(shape)} for {mapping.name}"
        )
    return x.contiguous()


def _combine(tensors: list[Tensor], mapping: WeightMapping, shape: torch.Size) -> Tensor:
    """The weight, or a tensor of the wrong shape if the tensors do not fit."""
    x, (_, operation, index) = tensors[0], mapping.source
    if operation == "joined" and len({one.shape[1:] for one in tensors}) == 1:
        return torch.cat(tensors) if len(tensors) > 1 else x
    if operation == "transposed":
        return x.t()
    if operation == "stacked" and index < len(x):
        return x[index].clone()  # a view would keep the whole stack in memory
    if operation == "reshaped" and x.numel() == shape.numel():
        return x.reshape(shape)
    if operation == "interleaved" and not len(x) % (3 * mapping.heads):
        return x.unflatten(0, (mapping.heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    if operation == "swapped":
        return x.roll(len(x) // 2, 0)
    return x


def export_weights(
    mappings: Iterable[WeightMapping],
    weights: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
) -> dict[str, Tensor]:
    """External tensors made of the weights. `shapes`: of the external tensors, by name."""
    found: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for mapping in mappings:
        (name, *_), operation, index = mapping.source
        if operation == "stacked":
            stacks.setdefault(name, {})[index] = weights[mapping.name]
        else:
            found |= _separate(weights[mapping.name], mapping, shapes)
    for name, entries in stacks.items():
        found[name] = torch.stack([entries[index] for index in sorted(entries)])
    return found


def _separate(
    x: Tensor, mapping: WeightMapping, shapes: Mapping[str, torch.Size]
) -> Iterator[tuple[str, Tensor]]:
    """The inverse of `_combine`."""
    names, operation, _ = mapping.source
    tensors = [x]
    if operation == "transposed":
        tensors = [x.t()]
    elif operation == "reshaped":
        tensors = [x.reshape(shapes[names[0]])]
    elif operation == "interleaved":
        tensors = [x.unflatten(0, (3, mapping.heads, -1)).transpose(0, 1).flatten(0, 2)]
    elif operation == "swapped":
        tensors = [x.roll(len(x) // 2, 0)]
    elif len(names) > 1:
        tensors = x.split([shapes[name][0] for name in names])
    for name, one in zip(names, tensors, strict=True):
        yield name, one.contiguous()


def abbreviate(names: Collection[str]) -> str:
    """The first names and the number of the others."""
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

"""A model whose weights are read from another library's checkpoint, one at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from skillweave.interop.key_map import KeyMap, WeightMapping, abbreviate, import_weight
from skillweave.model.model import Model
from skillweave.weights.files import WeightsError


class ModelLoader(NamedTuple):
    """A model on the meta device, and where its weights come from.

    `names`: name of an external tensor in the key map → its name in the checkpoint. `read`: gives
    an external tensor by its name in the key map.
    """

    model: Model
    mappings: list[WeightMapping]
    names: Mapping[str, str]
    read: Callable[[str], Tensor]
    where: str

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The weights by name, one at a time. Raises WeightsError for one of the wrong shape."""
        shapes = {name: x.shape for name, x in self.model.state_dict().items()}
        for mapping in self.mappings:
            try:
                yield mapping.name, import_weight(mapping, self.read, shapes[mapping.name])
            except WeightsError as error:
                raise WeightsError(f"{self.where}: {error}") from None

    def load(self) -> Model:
        """The model with its weights, in evaluation mode."""
        self.model.load_state_dict(dict(self.weights()), assign=True)
        return self.model.eval()


def match_weights(
    model: Model,
    key_map: KeyMap,
    names: Mapping[str, str],
    read: Callable[[str], Tensor],
    where: str,
    owner: str,
    hint: Callable[[], str] = str,
) -> ModelLoader:
    """The loader of a model on the meta device.

    `names`: as in `ModelLoader`. `read`: gives an external tensor by its name in the checkpoint.
    Raises WeightsError that names missing, unexpected and wrongly tied tensors. `where`, `owner`
    and `hint`: the checkpoint, the kind of model and a remedy, for its message.
    """
    mappings = key_map.map_weights(model.state_dict(), names, model.config.encoder.heads)
    needed = {name for mapping in mappings for name in mapping.source.names}
    names = dict(names)
    for alias, name in key_map.tied.items():
        # A checkpoint may hold any one of tied tensors.
        if name in needed and name not in names and alias in names:
            names[name] = names[alias]
    if faults := _faults(needed, key_map, names):
        raise WeightsError(f"{where} does not fit {owner}: {'; '.join(faults)}{hint()}")

    def fetch(name: str) -> Tensor:
        return read(names[name])

    for alias, name in key_map.tied.items():
        if alias in names and alias not in needed and names[alias] != names[name]:
            _require_tied(alias, name, fetch, where)
    for name in key_map.computed.keys() & names:
        _require_computed(name, fetch(name), key_map.computed[name], where)
    return ModelLoader(model, mappings, names, fetch, where)


def _faults(needed: Collection[str], key_map: KeyMap, names: Mapping[str, str]) -> list[str]:
    missing = set(needed) - set(names)
    unexpected = {
        names[name]
        for name in set(names) - set(needed) - set(key_map.tied) - set(key_map.computed)
        if not any(re.search(pattern, name) for pattern in key_map.ignored)
    }
    found = {"missing": missing, "unexpected": unexpected}
    return [f"{fault}: {abbreviate(some)}" for fault, some in found.items() if some]


def _require_tied(alias: str, name: str, fetch: Callable[[str], Tensor], where: str) -> None:
    if not torch.equal(fetch(alias), fetch(name)):
        raise WeightsError(
            f"{where}: {alias} is tied to {name}, but differs from it; this head can only be tied:"
            " tie the weights and save the model again"
        )


def _require_computed(
    name: str, x: Tensor, make: Callable[[torch.Size], Tensor], where: str
) -> None:
    if not torch.allclose(x.float(), make(x.shape), atol=0.01):  # bf16 has a step of 1/256 at 1
        raise WeightsError(
            f"{where}: {name} is computed in this family, but the checkpoint has other values for"
            " it, which have no counterpart here"
        )

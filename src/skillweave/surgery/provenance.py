"""Where each weight of a model comes from when other models' weights are put into it, and the table
that says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.layers.sparse import ConditionalFeedForward, ConditionalLinear
from skillweave.layers.sparse.routes import SkillRoute

EXPERT = re.compile(r"\.experts\.[^.]+")


@dataclass(frozen=True)
class Origin:
    """`source`: what a weight was copied from, empty for a fresh one. `note`: why it is fresh, or
    what of it was copied.

    `share`: of its numbers, those that were copied.
    """

    source: str = ""
    note: str = ""
    share: float = 1.0


@dataclass(frozen=True)
class OriginRow:
    """The weights of one part of a model that have the same origin: tensors, the numbers in them,
    and those that were copied."""

    group: str
    source: str
    note: str
    tensors: int
    numbers: int
    copied: int


def by_place(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of weights under the name they would have without experts.

    So `encoder.blocks.0.attention.qkv.experts.text.weight` stands under
    `encoder.blocks.0.attention.qkv.weight`. In a dense model each place holds one weight, whether
    its layer is a bank of one expert or no bank at all.
    """
    places: dict[str, list[str]] = {}
    for name in names:
        places.setdefault(place(name), []).append(name)
    return places


def place(name: str) -> str:
    """The name of a weight without the experts that it stands in."""
    return EXPERT.sub("", name) if name.startswith("encoder.") else name


def skill_owners(model: nn.Module) -> dict[str, list[Modality]]:
    """The weights of skills (experts that a table picks by modality) → the modalities that use
    them."""
    owners: dict[str, list[Modality]] = {}
    for path, bank in model.named_modules():
        if isinstance(bank, ConditionalLinear | ConditionalFeedForward) and isinstance(
            bank.route, SkillRoute
        ):
            for spans, skill in bank.route.table.items():
                modality, prefix = Modality(spans.partition("/")[0]), f"{path}.experts.{skill}."
                for name, _ in bank.named_parameters(path):
                    if name.startswith(prefix):
                        owners.setdefault(name, []).append(modality)
    return owners


def tabulate(origins: Mapping[str, Origin], weights: Mapping[str, Tensor]) -> list[OriginRow]:
    """A row per part and origin, in the model's order; the blocks of the encoder count as one
    part."""
    rows: dict[tuple[str, Origin], list[int]] = {}
    for name, origin in origins.items():
        rows.setdefault((_group(name), origin), []).append(weights[name].numel())
    return [
        OriginRow(
            group,
            o.source,
            o.note,
            len(sizes),
            sum(sizes),
            round(o.share * sum(sizes)) if o.source else 0,
        )
        for (group, o), sizes in rows.items()
    ]


def blocks_as_one(name: str) -> str:
    """A name whose block number is left open: what holds for one block mostly holds for all."""
    return re.sub(r"\bblocks\.\d+", "blocks.*", name)


def _group(name: str) -> str:
    if name.startswith("encoder."):
        return blocks_as_one(name).rpartition(".")[0]
    return ".".join(name.split(".")[:2])

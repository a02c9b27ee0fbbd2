"""Where each weight of a model comes from when weights of other models are put into it, and a table
of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.layers.sparse import ConditionalFeedForward, ConditionalLinear

PART = re.compile(r"(encoder|decoder|stream_encoders\.\w+)\.")
"""Beginning of the names of weights that may be those of experts: see `Model.part_of`."""
EXPERT = re.compile(r"\.experts\.[^.]+")


@dataclass(frozen=True)
class Provenance:
    """`source`: what a weight was copied from; empty for a fresh weight. `note`: why it is fresh,
    or which part of it was copied.

    `share`: of its numbers that were copied.
    """

    source: str = ""
    note: str = ""
    share: float = 1.0


@dataclass(frozen=True)
class ProvenanceRow:
    """The weights of one group with the same provenance: the number of tensors, of their elements,
    and of the elements that were copied."""

    group: str
    source: str
    note: str
    tensors: int
    numbers: int
    copied: int


def without_expert(name: str) -> str:
    """The name of a weight without the experts that it belongs to.

    For example, `encoder.blocks.0.attention.qkv.experts.text.weight` gives
    `encoder.blocks.0.attention.qkv.weight`.
    """
    return EXPERT.sub("", name) if PART.match(name) else name


def group_experts(names: Iterable[str]) -> dict[str, list[str]]:
    """Name without experts → names of weights. In a dense model each group has one weight, whether
    its layer is a bank of one expert or an ordinary layer."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(without_expert(name), []).append(name)
    return groups


def skill_owners(model: nn.Module) -> dict[str, list[Modality]]:
    """The weights of experts that belong to modalities (skills) → these modalities."""
    owners: dict[str, list[Modality]] = {}
    for path, bank in model.named_modules():
        if isinstance(bank, ConditionalLinear | ConditionalFeedForward):
            for expert, modalities in bank.route.owners().items():
                for name, _ in bank.get_submodule(f"experts.{expert}").named_parameters():
                    owners[f"{path}.experts.{expert}.{name}"] = list(modalities)
    return owners


def tabulate(
    provenance: Mapping[str, Provenance], weights: Mapping[str, Tensor]
) -> list[ProvenanceRow]:
    """A row per group and provenance, in the order of the model. All blocks of an encoder are one
    group."""
    rows: dict[tuple[str, Provenance], list[int]] = {}
    for name, origin in provenance.items():
        rows.setdefault((_group(name), origin), []).append(weights[name].numel())
    return [
        ProvenanceRow(
            group,
            origin.source,
            origin.note,
            len(sizes),
            sum(sizes),
            round(origin.share * sum(sizes)) if origin.source else 0,
        )
        for (group, origin), sizes in rows.items()
    ]


def any_block(name: str) -> str:
    """A name with `*` for the number of the block: most statements about one block hold for all."""
    return re.sub(r"\bblocks\.\d+", "blocks.*", name)


def _group(name: str) -> str:
    if PART.match(name):
        return any_block(name).rpartition(".")[0]
    return ".".join(name.split(".")[:2])

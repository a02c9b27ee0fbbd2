"""Upcycling: a dense model becomes a sparse one with the same output, because every expert begins
as a copy (Sparse Upcycling, arXiv 2212.05055)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from skillweave.config import ConfigError, choose
from skillweave.config.encoder import SparseConfig
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.model.parts import STREAM, part_configs, settings_path
from skillweave.surgery.provenance import (
    Provenance,
    ProvenanceRow,
    any_block,
    group_experts,
    tabulate,
)

Sparse = SparseConfig | Mapping[str, Any]
"""Experts of the shared encoder, or those of parts by path: `{decoder: {feed_forward: ...}}`."""


def upcycle(model: Model, sparse: Sparse, noise: float = 0.0, seed: int = 0) -> Model:
    """A model with the experts of `sparse`, each a copy of the dense layer that it replaces.

    The gates of every route sum to 1, so a mixture of copies equals the layer. Until it is trained,
    the new model has the output of `model`, up to rounding. Sites that are sparse already must stay
    as they are. `noise`: standard deviation of the noise added to each copy, relative to that of
    the copied tensor; the output then changes. No noise is needed: the paper's experts begin equal
    too, and a fresh gate, or the data of a skill, trains each of them differently. `seed`: of the
    fresh gates and the noise. Raises ConfigError where `sparse` does not fit the model.
    """
    if noise < 0:
        raise ConfigError(f"noise {noise}: a standard deviation is at least 0")
    config = _sparse_config(model.config, sparse)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        result = Model(config, model.assets).to(next(model.parameters())).train(model.training)
        sources, given = copied(result, model), model.state_dict()
        weights = {name: given[source] for name, source in sources.items() if source}
        copies = Counter(sources.values())
        for name, x in weights.items():
            if noise and copies[sources[name]] > 1:
                random = torch.randn(x.shape, dtype=x.dtype).to(x.device)
                weights[name] = x + noise * x.std(correction=0) * random
    result.load_state_dict(weights, strict=False)
    return result


def copied(result: Model, model: Model) -> dict[str, str]:
    """Weight of an upcycled model → the weight of `model` that it is a copy of, empty for a fresh
    one (a new gate).

    Raises ConfigError where `model` is sparse already, with other experts.
    """
    given, wanted = group_experts(model.state_dict()), group_experts(result.state_dict())
    sources: dict[str, str] = {}
    for group, names in wanted.items():
        there = given.get(group, [])
        if len(there) > 1 and set(there) != set(names):
            raise ConfigError(
                f"{any_block(group)} is sparse already: {len(there)} experts, such as {there[0]},"
                f" of which copying cannot make {len(names)} such as {names[0]}; keep the route and"
                " the experts of that site, or begin from a dense model"
            )
        sources |= {name: name if name in there else there[0] if there else "" for name in names}
    return {name: sources[name] for name in result.state_dict()}


def copy_table(result: Model, model: Model) -> list[ProvenanceRow]:
    """What the parts of an upcycled model were copied from."""
    sources = copied(result, model)
    return tabulate(
        {name: _provenance(name, source) for name, source in sources.items()}, result.state_dict()
    )


def _provenance(name: str, source: str) -> Provenance:
    if not source:
        return Provenance(note="a new gate")
    return Provenance("unchanged" if source == name else any_block(source).rpartition(".")[0])


def by_part(sparse: Sparse) -> Mapping[str, SparseConfig | Mapping[str, Any]]:
    """Path of each part → its experts."""
    if isinstance(sparse, SparseConfig) or not sparse:
        return {"encoder": sparse}
    paths = all(part in ("encoder", "decoder") or part.startswith(STREAM) for part in sparse)
    return sparse if paths else {"encoder": sparse}


def _sparse_config(config: ModelConfig, sparse: Sparse) -> ModelConfig:
    data = config.model_dump(mode="json")
    for part, wanted in by_part(sparse).items():
        choose(part_configs(config), part, "part of the model")
        if not isinstance(wanted, SparseConfig):
            wanted = SparseConfig.parse(wanted, "sparse")
        settings = data
        for key in settings_path(part):
            settings = settings[key]
        if wanted != part_configs(config)[part].sparse:
            settings["sparse"] = wanted.model_dump(mode="json")
    result = ModelConfig.parse(data, "upcycled model")
    if result == config:
        raise ConfigError(
            "the model has these experts already; say in `sparse` which sites get which route"
        )
    return result

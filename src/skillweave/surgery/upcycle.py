"""A dense model becomes a sparse one that answers alike: every expert begins as a copy (Sparse
Upcycling, arXiv 2212.05055)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from skillweave.config import ConfigError
from skillweave.config.encoder import SparseConfig
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.surgery.provenance import Origin, OriginRow, blocks_as_one, by_place, tabulate


def upcycle(
    model: Model, sparse: SparseConfig | Mapping[str, Any], noise: float = 0.0, seed: int = 0
) -> Model:
    """A model with the experts of `sparse`, each a copy of the dense layer that it takes the place
    of.

    The gates of every route sum to 1, so a mixture of copies is the layer itself: until it is
    trained, the new model's output is that of `model`, up to rounding. Places that are sparse
    already must stay as they are. `noise`: standard deviation of what is added to each copy,
    relative to that of the copied tensor. The output is then no longer the same, and none is
    needed: the paper's experts begin alike too, and part because a fresh gate, or a skill's own
    data, trains each of them differently. `seed`: of the fresh gates and the noise. Raises
    ConfigError where `sparse` does not fit the model.
    """
    if noise < 0:
        raise ConfigError(f"noise {noise}: a standard deviation is at least 0")
    config = _with_sparse(model.config, sparse)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        result = Model(config, model.assets).to(next(model.parameters())).train(model.training)
        sources, given = copied(result, model), model.state_dict()
        weights = {name: given[source] for name, source in sources.items() if source}
        copies = Counter(sources.values())
        for name, x in weights.items():
            if noise and copies[sources[name]] > 1:
                weights[name] = x + noise * x.std(correction=0) * torch.randn(
                    x.shape, dtype=x.dtype
                ).to(x.device)
    result.load_state_dict(weights, strict=False)
    return result


def copied(result: Model, model: Model) -> dict[str, str]:
    """The weights of an upcycled model → the weight of `model` that each is a copy of, empty for
    fresh ones (new gates).

    Raises ConfigError where `model` is sparse already, with other experts.
    """
    given, wanted = by_place(model.state_dict()), by_place(result.state_dict())
    sources: dict[str, str] = {}
    for where, names in wanted.items():
        there = given.get(where, [])
        if len(there) > 1 and set(there) != set(names):
            raise ConfigError(
                f"{blocks_as_one(where)} is sparse already: {len(there)} experts, such as"
                f" {there[0]}, of which copying cannot make {len(names)} such as {names[0]}; keep"
                " that place's route and experts, or begin from a dense model"
            )
        sources |= {name: name if name in there else there[0] if there else "" for name in names}
    return {name: sources[name] for name in result.state_dict()}


def copy_table(result: Model, model: Model) -> list[OriginRow]:
    """What an upcycled model's parts were copied from."""
    sources = copied(result, model)
    return tabulate(
        {name: _origin(name, source) for name, source in sources.items()}, result.state_dict()
    )


def _origin(name: str, source: str) -> Origin:
    if not source:
        return Origin(note="a new gate")
    return Origin("as it was" if source == name else blocks_as_one(source).rpartition(".")[0])


def _with_sparse(config: ModelConfig, sparse: SparseConfig | Mapping[str, Any]) -> ModelConfig:
    wanted = sparse if isinstance(sparse, SparseConfig) else SparseConfig.parse(sparse, "sparse")
    if wanted == config.encoder.sparse:
        raise ConfigError(
            "the model has these experts already; say in `sparse` which places get which route"
        )
    data = config.model_dump(mode="json")
    data["encoder"]["sparse"] = wanted.model_dump(mode="json")
    return ModelConfig.parse(data, "upcycled model")

"""One pass of a carved model for programs without skillweave: a stock Hugging Face model, or a
graph of torch.export."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.config.encoder import RecurrentConfig
from skillweave.model.model import Model
from skillweave.surgery.export.graph import run_graph, write_graph
from skillweave.surgery.export.stock import misfit

ABSENT = "transformers is not installed (pip install 'skillweave[hf]')"


def export_tower(
    tower: Model, batch: Batch, expected_NLD: Tensor, folder: Path, name: str
) -> dict[str, Any]:
    """Write a tower, read it back and run it on a batch.

    `tower`: a dense model of one task of one pass. `expected_NLD`: its hidden states, zeros where
    there is no token. Returns `name`, `format` (the Hugging Face class, or `torch.export`), `path`
    (with the folder's name), `why` it is not a stock model (empty where it is one) and
    `largest_relative_error` of the hidden states. Raises ConfigError for a recurrent encoder, which
    reads each sample to its own end, as a graph cannot.
    """
    if isinstance(tower.config.encoder, RecurrentConfig):
        raise ConfigError(
            f"{name}: a graph cannot hold an encoder {tower.config.encoder.name!r}; use --no-towers"
        )
    folder.mkdir(exist_ok=True)
    why = misfit(tower) if find_spec("transformers") else ABSENT
    if why:
        path, form = folder / f"{name}.pt2", "torch.export"
        write_graph(tower, batch, path)
        found_NLD = run_graph(path, batch)
    else:
        from skillweave.surgery.export.hugging_face import run_stock, write_stock

        path = folder / name
        form = write_stock(tower, path)
        found_NLD = run_stock(tower, path, batch)
    own_NL = torch.cat(
        [
            torch.arange(s.length) < batch.lengths[:, i : i + 1]
            for i, s in enumerate(batch.layout.spans)
        ],
        1,
    )
    apart = ((found_NLD - expected_NLD)[own_NL].abs().max() / expected_NLD.abs().max()).item()
    where = os.path.join(folder.name, path.name)
    return {
        "name": name,
        "format": form,
        "path": where,
        "why": why,
        "largest_relative_error": apart,
    }

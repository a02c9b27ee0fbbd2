"""Export of an encoder for programs without skillweave: as a stock Hugging Face model, or as a
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
from skillweave.surgery.export.stock import difference_to_stock

ABSENT = "transformers is not installed (pip install 'skillweave[hf]')"


def export_encoder(
    model: Model, batch: Batch, expected_NLD: Tensor, folder: Path, name: str
) -> dict[str, Any]:
    """Export the encoder of a model, read it back and run it on a batch.

    `model`: a dense model of one task with one pass. `expected_NLD`: its hidden states, zeros at
    padding. Returns `name`, `format` (the Hugging Face class, or `torch.export`), `path` (with the
    folder's name), `why` it is not a stock model (empty where it is one) and
    `largest_relative_error` of the hidden states. Raises ConfigError for a recurrent encoder, whose
    loop over a sample's own length a graph cannot hold.
    """
    if isinstance(model.config.encoder, RecurrentConfig):
        raise ConfigError(
            f"{name}: a graph cannot hold an encoder {model.config.encoder.name!r}; use --no-export"
        )
    folder.mkdir(exist_ok=True)
    why = difference_to_stock(model) if find_spec("transformers") else ABSENT
    if why:
        path, form = folder / f"{name}.pt2", "torch.export"
        write_graph(model, batch, path)
        found_NLD = run_graph(path, batch)
    else:
        from skillweave.surgery.export.hugging_face import run_stock, write_stock

        path = folder / name
        form = write_stock(model, path)
        found_NLD = run_stock(model, path, batch)
    lengths = zip(batch.layout.spans, batch.lengths.split(1, 1), strict=True)
    valid_NL = torch.cat([torch.arange(span.length) < own_N1 for span, own_N1 in lengths], 1)
    error = ((found_NLD - expected_NLD)[valid_NL].abs().max() / expected_NLD.abs().max()).item()
    where = os.path.join(folder.name, path.name)
    about = {"name": name, "format": form, "path": where, "why": why}
    return {**about, "largest_relative_error": error}

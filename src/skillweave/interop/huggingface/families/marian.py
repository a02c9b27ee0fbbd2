"""Marian (arXiv 1804.00344) as Transformers has it: BART with sines and cosines as positions, and
without a norm of the embeddings."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from skillweave.components.embeddings.position import SinusoidalPositionEmbedding
from skillweave.interop.huggingface.families.bart import (
    generation_heads,
    sequence_to_sequence,
)
from skillweave.interop.huggingface.families.t5 import SIDES


def _positions(shape: torch.Size) -> Tensor:
    return SinusoidalPositionEmbedding(shape[1])(torch.zeros(1, *shape))[0]


MARIAN = sequence_to_sequence(
    "marian",
    generation_heads("Marian", "MarianMTModel"),
    stream_constants={"embedding": ["word", "sinusoidal"], "norm": False},
    side_constants={},
)
MARIAN = replace(
    MARIAN,
    required={**MARIAN.required, "share_encoder_decoder_embeddings": True},
    computed={f"{side}.embed_positions.weight": _positions for side in SIDES},
)
MARIAN.register()

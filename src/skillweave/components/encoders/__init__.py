"""Encoders by name."""

from __future__ import annotations

from collections.abc import Callable

from skillweave.components.encoders.base import Encoder
from skillweave.components.encoders.gated_cnn import GatedCNNEncoder
from skillweave.components.encoders.recurrent import CELLS, RecurrentEncoder
from skillweave.components.encoders.transformer import TransformerEncoder

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "transformer": TransformerEncoder,
    **dict.fromkeys(CELLS, RecurrentEncoder),
    "gated_cnn": GatedCNNEncoder,
}

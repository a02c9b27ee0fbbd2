"""Decoders by name (TencentPretrain section 3.1): what reads the answer so far and looks at the
encoded input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from skillweave.components.encoders.base import Encoder
from skillweave.components.encoders.recurrent import CELLS, RecurrentDecoder
from skillweave.components.encoders.transformer import TransformerEncoder

DECODERS: dict[str, Callable[..., Encoder]] = {
    "transformer": partial(TransformerEncoder, cross=True),
    **dict.fromkeys(CELLS, RecurrentDecoder),
}
"""A block of the Transformer decoder is one of the encoder with attention to a memory in
between."""

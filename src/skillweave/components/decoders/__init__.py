"""Decoders: the module of each configuration class.

A decoder reads the answer so far and attends to the encoded input (TencentPretrain section 3.1).
"""

from __future__ import annotations

from functools import partial, singledispatch

from skillweave.components.encoders.base import Encoder
from skillweave.components.encoders.recurrent import RecurrentDecoder
from skillweave.components.encoders.transformer import TransformerEncoder
from skillweave.config.encoder import Architecture, RecurrentConfig, TransformerConfig
from skillweave.layers.sparse import Known


@singledispatch
def build_decoder(config: Architecture, width: int, known: Known) -> Encoder:
    """The decoder of a configuration. `width`: of its vectors. `known`: the skills and tasks that
    the routes of experts distinguish. Raises TypeError for a class without a module."""
    raise TypeError(f"no decoder is registered for {type(config).__name__}")


# a block of the Transformer decoder is a block of the encoder that also attends to a memory
build_decoder.register(TransformerConfig, partial(TransformerEncoder, cross=True))
build_decoder.register(RecurrentConfig, RecurrentDecoder)

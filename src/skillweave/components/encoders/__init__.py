"""Encoders: the module of each configuration class."""

from __future__ import annotations

from functools import singledispatch

from skillweave.components.encoders.base import Encoder
from skillweave.components.encoders.gated_cnn import GatedCNNEncoder
from skillweave.components.encoders.recurrent import RecurrentEncoder
from skillweave.components.encoders.transformer import TransformerEncoder
from skillweave.config.encoder import (
    Architecture,
    GatedCNNConfig,
    RecurrentConfig,
    TransformerConfig,
)
from skillweave.layers.sparse import Known


@singledispatch
def build_encoder(config: Architecture, width: int, known: Known) -> Encoder:
    """The encoder of a configuration. `width`: of its vectors. `known`: the skills and tasks that
    the routes of experts distinguish. Raises TypeError for a class without a module."""
    raise TypeError(f"no encoder is registered for {type(config).__name__}")


build_encoder.register(TransformerConfig, TransformerEncoder)
build_encoder.register(RecurrentConfig, RecurrentEncoder)
build_encoder.register(GatedCNNConfig, GatedCNNEncoder)

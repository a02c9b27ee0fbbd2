"""BERT's transform before an output layer: a dense layer, a nonlinearity and a normalisation."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor, nn

from skillweave.config.base import Config
from skillweave.config.encoder import Activation
from skillweave.layers.feed_forward import ACTIVATIONS


class TransformConfig(Config):
    """A dense layer, a nonlinearity and a layer normalisation (BERT's masked language model;
    ModernBERT: every target)."""

    activation: Activation = "gelu"
    """The nonlinearity."""
    norm_epsilon: PositiveFloat = 1e-12
    """Added to the variance in normalisation."""
    biases: list[Literal["dense", "norm"]] = ["dense", "norm"]
    """Which of the two layers have a bias."""


class _Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def build_transform(config: TransformConfig | None, width: int) -> nn.Module:
    """[..., D] → [..., D]; the identity without a configuration."""
    if config is None:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict(
            dense=nn.Linear(width, width, "dense" in config.biases),
            activation=_Activation(config.activation),
            norm=nn.LayerNorm(width, config.norm_epsilon, bias="norm" in config.biases),
        )
    )

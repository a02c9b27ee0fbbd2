"""How much of a trained model a run trains."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat

from skillweave.config.base import Config, Positive


class TuningConfig(Config):
    """What is trained of the model that `start_from` names. With `prompt` and `lora` its checkpoints hold that part alone."""

    method: Literal["prompt", "lora", "full"] = "prompt"
    """`prompt`: learned vectors before each layer's keys and values, the norms, the similarity scale, and for classes the
    classifier's last layer or a linear layer added to the similarities (Uni-Perceiver-MoE). `lora`: a change of low rank to
    each linear layer of the encoder. `full`: everything."""
    prompts: Positive = 10
    """Method `prompt`: vectors per layer."""
    rank: Positive = 8
    """Method `lora`: rank of the changes."""
    alpha: PositiveFloat = 16.0
    """Method `lora`: the changes are multiplied by alpha / rank."""

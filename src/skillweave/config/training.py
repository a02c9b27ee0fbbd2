"""How a model is trained: length, optimiser, schedule, precision, devices, and which part of it."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from skillweave.config.base import Config, Positive


class OptimizerConfig(Config):
    """AdamW with a linear schedule (SkillNet appendix)."""

    learning_rate: PositiveFloat = 1e-4
    """Peak rate."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled decay; biases, norms and one-dimensional parameters are left out."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean and mean square of the gradients."""
    epsilon: PositiveFloat = 1e-8
    """Added to the denominator."""
    warmup: NonNegativeFloat = 0.1
    """Warm-up: a share of all steps below 1, a number of steps from 1."""
    clip: PositiveFloat | None = 1.0
    """Largest norm of the gradient; none when null."""


class TrackingConfig(Config):
    """Interference of tasks followed while they train, on sketches of gradients (Uni-Perceiver-MoE
    eq. 1-2)."""

    every: Positive = 2
    """Steps between looks at the gradient."""
    dimension: Positive = 256
    """Numbers that a block's gradient is projected to; products of two directions err by about 1 /
    √dimension."""
    blocks: list[str] = []
    """As `--blocks` of `skillweave interference`: the feed-forwards of two layers when empty."""


class TrainingConfig(Config):
    """How long and how to train. Give one of `steps`, `epochs` or `samples`."""

    steps: Positive | None = None
    """Updates in all."""
    epochs: PositiveFloat | None = None
    """Passes over the largest task's data, counted by the mixture's weights."""
    samples: Positive | None = None
    """Samples in all, over all tasks and processes."""
    seed: NonNegativeInt = 0
    """Of weights, mixture, order, masking, augmentation and dropout."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimiser and schedule."""
    accumulate: Positive = 1
    """Micro-batches per update, all of one task."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16 runs the forward under autocast; weights and optimiser stay float32. CPUs without bf16
    emulate it, slowly."""
    validate_every: NonNegativeInt = 0
    """Steps between validations of every task; 0 for only at the end."""
    validation_samples: Positive = 256
    """Most validation samples per task."""
    checkpoint_every: NonNegativeInt = 0
    """Steps between checkpoints; 0 for only at the end."""
    keep: Positive = 1
    """Checkpoints kept beside the best."""
    log_every: Positive = 10
    """Steps between lines of `metrics.jsonl` and TensorBoard."""
    interference: TrackingConfig | None = None
    """How tasks help or harm each other, logged as they train; not followed when absent."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0 prepares them in the training process."""
    bucket: Positive = 8
    """Lengths of text, code and sound are padded to a multiple of it."""
    window: Positive = 16
    """Batches sorted by length together, so that little is padding."""
    max_nonfinite: Positive = 5
    """Steps in a row with a loss that is not finite after which the run stops."""
    threads: Positive | None = None
    """CPU threads; PyTorch's own choice when absent."""
    devices: Positive = 1
    """Processes, one a device."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to run."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        given = [name for name in ("steps", "epochs", "samples") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of steps, epochs or samples, not {' and '.join(given) or 'none'}"
            )
        return self


class TuningConfig(Config):
    """What is trained of the model that `start_from` names. With `prompt` and `lora` its
    checkpoints hold that part alone."""

    method: Literal["prompt", "lora", "full"] = "prompt"
    """`prompt`: learned vectors before each layer's keys and values, the norms, the similarity
    scale, and for classes the classifier's last layer or a linear layer added to the similarities
    (Uni-Perceiver-MoE). `lora`: a change of low rank to each linear layer of the encoder. `full`:
    everything."""
    prompts: Positive = 10
    """Method `prompt`: vectors per layer."""
    rank: Positive = 8
    """Method `lora`: rank of the changes."""
    alpha: PositiveFloat = 16.0
    """Method `lora`: the changes are multiplied by alpha / rank."""

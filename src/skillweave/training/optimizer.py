"""AdamW with a linear schedule, and its state as flat tensors (SkillNet appendix)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skillweave.config import ConfigError
from skillweave.config.training import OptimizerConfig

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
UNDECAYED = (*NORMS, nn.Embedding)
"""Modules whose own parameters are never decayed, whatever their shape."""
LOOKED_UP = ("position", "prompts")
"""What stands in the names of other parameters that look up rather than project."""


def decayed(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The trainable parameters by name: those that decay, and the others.

    Weights of two or more dimensions decay; vectors, scalars, norms, prompts and the tables and
    biases of embeddings and positions do not: they scale or look up, so pulling them to zero
    regularises nothing.
    """
    kept_whole = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, UNDECAYED)
        for parameter in module.parameters(recurse=False)
    }
    decay: dict[str, nn.Parameter] = {}
    plain: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_plain = (
                parameter.ndim < 2
                or id(parameter) in kept_whole
                or any(word in name for word in LOOKED_UP)
            )
            (plain if is_plain else decay)[name] = parameter
    return decay, plain


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters.

    The fused form runs on CPU, CUDA and MPS alike, always in float32. A parameter without a
    gradient is neither updated nor decayed, and its step count rests; so clear gradients with
    `zero_grad(set_to_none=True)`. Raises ConfigError for a model without a trainable parameter.
    """
    decay, plain = decayed(model)
    groups = [
        {"params": list(decay.values()), "weight_decay": config.weight_decay},
        {"params": list(plain.values()), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ConfigError("the model has no trainable parameter")
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True
    )


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The rate of the update that follows `step` done ones, of `steps` in all.

    It rises linearly over the warm-up to its peak and falls linearly to 0, which it would reach one
    update after the last.
    """
    warmup = round(config.warmup * steps) if config.warmup < 1 else round(config.warmup)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * (steps - step) / max(steps - warmup, 1)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as `parameter name/entry` → tensor; a parameter that was never active
    has none."""
    return {
        f"{name}/{entry}": tensor.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for entry, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Restore what `optimizer_tensors` gave.

    Raises ConfigError when the tensors belong to other parameters than the model's.
    """
    parameters = dict(model.named_parameters())
    restored: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        name, _, entry = path.rpartition("/")
        if name not in parameters or (tensor.ndim and tensor.shape != parameters[name].shape):
            raise ConfigError(
                f"optimizer.safetensors: {path} {tuple(tensor.shape)} fits no parameter of the"
                " model"
            )
        # A copy of its own: the tensor read from the file lies in the file's memory map.
        restored.setdefault(name, {})[entry] = tensor.to(parameters[name].device, copy=True)
    for name, state in restored.items():
        optimizer.state[parameters[name]] = state

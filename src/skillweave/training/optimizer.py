"""AdamW with linear warm-up and decay of the learning rate (SkillNet appendix), and the optimizer
state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from skillweave.config import ConfigError
from skillweave.config.training import OptimizerConfig

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


def split_by_decay(
    model: nn.Module,
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The trainable parameters by name: those with weight decay, and those without.

    Weight decay applies to parameters with two or more dimensions, except those of norms and
    `nn.Embedding` and those that a module lists in its attribute `no_weight_decay`.
    """
    exempt = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, (*NORMS, nn.Embedding))
        or name in getattr(module, "no_weight_decay", ())
    }
    decay: dict[str, nn.Parameter] = {}
    no_decay: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            chosen = no_decay if parameter.ndim < 2 or id(parameter) in exempt else decay
            chosen[name] = parameter
    return decay, no_decay


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters, in the fused implementation.

    A parameter whose gradient is None is neither updated nor decayed, and its step count does not
    advance; clear gradients with `zero_grad(set_to_none=True)`. Raises ConfigError for a model
    without trainable parameters.
    """
    decay, no_decay = split_by_decay(model)
    groups = [
        {"params": list(decay.values()), "weight_decay": config.weight_decay},
        {"params": list(no_decay.values()), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ConfigError("the model has no trainable parameter")
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True
    )


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The learning rate of update number `step`, counted from 0, of `steps` updates.

    It rises linearly to its peak during the warm-up, stays there until the decay, then falls as
    `schedule` says; it would reach 0 one update after the last.
    """
    warmup = round(config.warmup * steps) if config.warmup < 1 else round(config.warmup)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    falling = max(config.decay * (steps - warmup), 1)
    left = min(1.0, (steps - step) / falling)
    if config.schedule == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return config.learning_rate * left


def make_schedule(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, steps: int, done: int = 0
) -> LambdaLR:
    """A schedule that sets the rates of `learning_rate`, from update number `done` on."""
    for group in optimizer.param_groups:
        # LambdaLR multiplies by this. 1 keeps the rate exact.
        group["initial_lr"] = 1.0
    return LambdaLR(optimizer, lambda step: learning_rate(step, steps, config), done - 1)


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer state: `parameter name/entry` → tensor. A parameter that was never active has
    no entries."""
    return {
        f"{name}/{entry}": tensor.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for entry, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Restore the state that `optimizer_tensors` returned.

    Raises ConfigError if the tensors do not fit the model's parameters.
    """
    parameters = dict(model.named_parameters())
    for path, tensor in tensors.items():
        name, _, entry = path.rpartition("/")
        if name not in parameters or (tensor.ndim and tensor.shape != parameters[name].shape):
            raise ConfigError(
                f"optimizer.safetensors: {path} {tuple(tensor.shape)} fits no parameter of the"
                " model"
            )
        # A copy: a tensor that was read from a file lies in the file's memory map.
        copied = tensor.to(parameters[name].device, copy=True)
        optimizer.state[parameters[name]][entry] = copied

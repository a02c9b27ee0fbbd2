"""The optimizer of a recipe, its learning rate (SkillNet appendix), and its state as named
tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from skillweave.config import ConfigError
from skillweave.config.training import (
    AdafactorConfig,
    AdamW8bitConfig,
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    OptimizerSettings,
)
from skillweave.training.muon import Joined, MatrixMuon, block_matrices
from skillweave.training.tensor_files import load_into, shapes
from skillweave.training.tensor_parts import divided_like, is_divided

OPTIMIZER_FILE, OPTIMIZER_FOLDER = "optimizer.safetensors", "optimizer"
"""Where a checkpoint has the state: of one process, or the parts of several."""
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


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """The optimizer of a recipe over the model's trainable parameters.

    A parameter whose gradient is None is neither updated nor decayed, and its step count does not
    advance; clear gradients with `zero_grad(set_to_none=True)`. Raises ConfigError for a model
    without trainable parameters, and for an optimizer of a package that is not installed.
    """
    decay, no_decay = (list(part.values()) for part in split_by_decay(model))
    if not decay and not no_decay:
        raise ConfigError("the model has no trainable parameter")
    return _build(config, model, decay, no_decay)


Parameters = list[nn.Parameter]


@singledispatch
def _build(
    config: OptimizerSettings, model: nn.Module, decay: Parameters, no_decay: Parameters
) -> Optimizer:
    raise TypeError(f"no optimizer is registered for {type(config).__name__}")


@_build.register
def _(config: AdamWConfig, model: nn.Module, decay: Parameters, no_decay: Parameters) -> Optimizer:
    return _adamw(config, decay, no_decay)


@_build.register
def _(
    config: AdafactorConfig, model: nn.Module, decay: Parameters, no_decay: Parameters
) -> Optimizer:
    return torch.optim.Adafactor(
        _groups(config, decay, no_decay), config.learning_rate, d=config.clipping
    )


@_build.register
def _(config: MuonConfig, model: nn.Module, decay: Parameters, no_decay: Parameters) -> Optimizer:
    matrices = block_matrices(model)
    if not matrices:
        return _adamw(config, decay, no_decay)
    muon = MatrixMuon(
        matrices,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        # updates as large as AdamW's (arXiv 2502.16982, section 2.2)
        adjust_lr_fn="match_rms_adamw",
    )
    others = [parameter for parameter in decay if parameter not in matrices]
    return Joined(muon, _adamw(config, others, no_decay)) if others or no_decay else muon


@_build.register
def _(
    config: AdamW8bitConfig, model: nn.Module, decay: Parameters, no_decay: Parameters
) -> Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ConfigError(
            "training.optimizer.kind: adamw_8bit needs bitsandbytes; run pip install"
            " 'skillweave[8bit]', or use adamw"
        ) from None
    exact = _adamw(config, [], no_decay)
    if not decay:
        return exact
    small = AdamW8bit(
        decay,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    return Joined(small, exact) if no_decay else small


def _adamw(
    config: AdamWConfig | MuonConfig | AdamW8bitConfig, decay: Parameters, no_decay: Parameters
) -> Optimizer:
    return torch.optim.AdamW(
        _groups(config, decay, no_decay),
        config.learning_rate,
        config.betas,
        config.epsilon,
        fused=True,
    )


def _groups(
    config: OptimizerSettings, decay: Parameters, no_decay: Parameters
) -> list[dict[str, Any]]:
    groups = [
        {"params": [p for p in parameters if is_divided(p) is divided], **decayed}
        for parameters, decayed in (
            (decay, {"weight_decay": config.weight_decay}),
            (no_decay, {"weight_decay": 0.0}),
        )
        # PyTorch's kernels take tensors or parts of tensors, not both
        for divided in (False, True)
    ]
    return [group for group in groups if group["params"]]


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
    elif config.schedule == "1-sqrt":
        left = 1 - math.sqrt(1 - left)
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
    no entries. Whole numbers of Python are tensors of 64 bits."""
    found = {}
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensor = torch.as_tensor(value).detach().cpu().contiguous()
            # bitsandbytes has one table for all parameters, and a file has no shared tensors
            found[f"{name}/{entry}"] = tensor.clone() if entry.startswith("qmap") else tensor
    return found


def read_optimizer_tensors(
    folder: Path, model: nn.Module, elsewhere: Collection[str] = ()
) -> dict[str, Tensor]:
    """What `optimizer_tensors` gave for a checkpoint, whether one process wrote it or several did:
    in parts for parameters that are in parts. `elsewhere`: parameters that only other processes
    have, whose state is left out."""

    def is_here(path: str) -> bool:
        return path.rpartition("/")[0] not in elsewhere

    if not (folder / OPTIMIZER_FOLDER).is_dir():
        stored = load_file(folder / OPTIMIZER_FILE)
        return {path: tensor for path, tensor in stored.items() if is_here(path)}
    parameters = dict(model.named_parameters())
    tensors = {}
    for path, shape in shapes(folder / OPTIMIZER_FOLDER).items():
        if not is_here(path):
            continue
        parameter = parameters.get(path.rpartition("/")[0])
        fits = parameter is not None and parameter.shape == shape.shape
        like = parameter.detach() if parameter is not None and fits else shape
        device = like.device if fits else "cpu"
        tensors[path] = torch.empty_like(like, dtype=shape.dtype, device=device)
    load_into(tensors, folder / OPTIMIZER_FOLDER)
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Restore the state that `optimizer_tensors` returned.

    Raises ConfigError if the tensors do not fit the model's parameters.
    """
    parameters = dict(model.named_parameters())
    for path, tensor in tensors.items():
        name, _, entry = path.rpartition("/")
        if name not in parameters or not _fits(entry, tensor, parameters[name]):
            raise ConfigError(
                f"optimizer.safetensors: {path} {tuple(tensor.shape)} fits no parameter of the"
                " model"
            )
        # A copy: a tensor that was read from a file lies in the file's memory map.
        copied = divided_like(tensor.to(parameters[name].device, copy=True), parameters[name])
        whole = not tensor.ndim and tensor.dtype == torch.int64
        optimizer.state[parameters[name]][entry] = copied.item() if whole else copied


def _fits(entry: str, tensor: Tensor, parameter: Tensor) -> bool:
    """Whether an entry of the state can be the parameter's: it has its shape, or is a number, a
    factor of its mean squares (Adafactor), or a part of the code of 8 bits."""
    *outer, rows, columns = (1, 1, *parameter.shape)
    shape = {
        "row_var": (*outer, rows, 1)[2:],
        "col_var": (*outer, 1, columns)[2:],
    }.get(entry, tuple(parameter.shape))
    coded = entry.startswith(("qmap", "absmax"))
    return not tensor.ndim or coded or tuple(tensor.shape) == shape

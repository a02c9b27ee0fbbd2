"""Train a small part of a model and leave the rest as it was: prompts (Uni-Perceiver-MoE section
4.3 and its code) or LoRA."""

from __future__ import annotations

import json
from collections.abc import Collection, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from skillweave.components.targets import Target
from skillweave.config import ConfigError
from skillweave.config.training import TuningConfig
from skillweave.layers.low_rank import LowRank
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.training.optimizer import NORMS
from skillweave.training.start import start_folder, take_weights
from skillweave.weights.adapters import Adapter, frozen_part, read_state
from skillweave.weights.files import WeightsError

PEFT_FILE = "adapter_config.json"
LEARNABLE = ("targets.", ".prompts", ".route.vectors.")
"""What stands in the names of weights that a base may lack."""


@dataclass(frozen=True)
class Tuning:
    """How a run's model was tuned, and the base it stands on: its folder, and the fingerprint of
    what is left as it was."""

    config: TuningConfig
    base: str
    frozen: str

    def save(self, model: Model, folder: Path) -> None:
        """Write what was trained, config.json and the assets into a folder; LoRA's also as peft
        describes it."""
        model.save_description(folder)
        tensors = {_in_file(name): x for name, x in model.named_parameters() if x.requires_grad}
        Adapter(self.base, self.frozen, tensors, self.config.alpha / self.config.rank).write(folder)
        if self.config.method == "lora":
            text = json.dumps(peft_config(self.config, tensors, self.base), indent=2)
            (folder / PEFT_FILE).write_text(text + "\n", "utf-8")


def build_tuned(
    recipe: RecipeConfig, config: TuningConfig, assets: dict[str, bytes], newest: Path | None
) -> tuple[Model, Tuning, str]:
    """The model to train, all else frozen; what saves it; and a report of what was taken from the
    base.

    `newest`: the checkpoint to go on from. Raises ConfigError when the base lacks a part that is
    not to be learned here, is not there or, on resuming, has changed.
    """
    stored = Adapter.read(newest) if newest else None
    base = Path(stored.base) if stored else start_folder(recipe.start_from or "").resolve()
    torch.manual_seed(recipe.training.seed)
    model = Model(recipe.model, assets)
    names = set(model.state_dict())
    try:
        given = read_state(base, names)
        if stored:
            stored.require(given, names)
    except WeightsError as error:
        raise ConfigError(str(error)) from None
    report = take_weights(model, given, str(base))
    fresh = {
        name
        for name, x in model.state_dict().items()
        if name not in given or given[name].shape != x.shape
    }
    require_base(fresh, base)
    freeze(model, config, fresh)
    trained = {_in_file(name): x.numel() for name, x in model.named_parameters() if x.requires_grad}
    report += (
        f"\n  tuning, {config.method}: {sum(trained.values()):,} numbers are trained, the others"
        " stay as they are"
    )
    if stored:
        model.load_state_dict(
            {_in_model(name): x for name, x in stored.tensors.items()}, strict=False
        )
    return model, Tuning(config, str(base), frozen_part(given, names, trained)), report


def require_base(fresh: Collection[str], base: Path) -> None:
    """Raise ConfigError when the base lacks a part of the model that only training from nothing
    could give."""
    lost = sorted(name for name in fresh if not any(part in name for part in LEARNABLE))
    if lost:
        raise ConfigError(
            f"start_from: {base} lacks {', '.join(lost[:5])} ({len(lost)} in all) or has them in"
            " another shape, and tuning does not train these; give the model that the base has,"
            " with `base: RUN/recipe.yaml` in the recipe"
        )


def freeze(model: Model, config: TuningConfig, fresh: Set[str]) -> None:
    """Leave trainable only what the method trains, of what the model's tasks activate, and what is
    `fresh`."""
    active = set(model.active_parameters(model.config.tasks))
    trained = fresh | (prompted(model) & active if config.method == "prompt" else set())
    adapted = (
        [layer for path, layer in linear_layers(model) if f"{path}.weight" in active]
        if config.method == "lora"
        else []
    )
    for layer in adapted:
        change = LowRank(layer.weight, config.rank, config.alpha / config.rank)
        parametrize.register_parametrization(layer, "weight", change)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained or name != _in_file(name))


def prompted(model: Model) -> set[str]:
    """What prompt tuning trains: prompts, norms, and what targets name, such as the similarity
    scale.

    Norms in routes are left alone: all tunings of a model share the choice of its experts.
    """
    names = {name for name, _ in model.named_parameters() if name.endswith(".prompts")}
    for path, module in model.named_modules():
        if isinstance(module, NORMS) and ".route." not in path:
            names |= {f"{path}.{name}" for name, _ in module.named_parameters()}
        if isinstance(module, Target):
            names |= {f"{path}.{name}" for name in module.tuned}
    return names


def linear_layers(model: Model) -> list[tuple[str, nn.Linear]]:
    """The encoder's linear layers by path, experts among them, gates not."""
    found = [
        (path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)
    ]
    return [
        (path, module)
        for path, module in found
        if path.startswith("encoder.") and ".route." not in path
    ]


def peft_config(config: TuningConfig, tensors: Collection[str], base: str) -> dict[str, Any]:
    """`adapter_config.json` for peft's LoraConfig."""
    adapted = {name.rpartition(".lora_")[0] for name in tensors if ".lora_" in name}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(adapted),
        "modules_to_save": (
            sorted({name.rpartition(".")[0] for name in tensors if ".lora_" not in name}) or None
        ),
        "inference_mode": True,
    }


def _in_file(name: str) -> str:
    """A parameter's name in an adapter: that of a low-rank factor is peft's, others are as they
    are."""
    path, inner, factor = name.partition(".parametrizations.weight.0.")
    return f"{path}.{factor}.weight" if inner else name


def _in_model(name: str) -> str:
    """The inverse of `_in_file`."""
    path, inner, factor = name.removesuffix(".weight").partition(".lora_")
    return f"{path}.parametrizations.weight.0.lora_{factor}" if inner else name

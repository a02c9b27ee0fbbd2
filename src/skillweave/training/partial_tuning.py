"""Parameter-efficient fine-tuning: train prompts (Uni-Perceiver-MoE section 4.3 and its code), LoRA
factors or some parts, and freeze the rest of the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.config.training import TuningConfig
from skillweave.layers.low_rank import LowRank
from skillweave.model.model import Model
from skillweave.model.parts import STREAM
from skillweave.recipe import RecipeConfig
from skillweave.storage import write_json
from skillweave.training.initial_weights import copy_weights, start_folder
from skillweave.training.optimizer import NORMS
from skillweave.weights.adapters import LOW_RANK, Adapter, frozen_part, read_state
from skillweave.weights.files import WeightsError

PEFT_FILE = "adapter_config.json"


@dataclass(frozen=True)
class PartialTuning:
    """How a part of a model is tuned.

    `base`: folder of the model that is tuned. `frozen`: fingerprint of its frozen weights.
    """

    config: TuningConfig
    base: str
    frozen: str

    def save(self, model: Model, folder: Path, trained: Mapping[str, Tensor] | None = None) -> None:
        """Write the trained weights, config.json and the assets into a folder; with LoRA also the
        configuration for peft. `trained`: the weights, if they are not those that the model has
        now."""
        model.save_description(folder)
        given = dict(_trainable(model)) if trained is None else trained
        tensors = {_adapter_name(name): x for name, x in given.items()}
        Adapter(self.base, self.frozen, tensors, self.config.alpha / self.config.rank).write(folder)
        if any(LOW_RANK.fullmatch(name) for name in tensors):
            write_json(folder / PEFT_FILE, peft_config(self.config, tensors, self.base))


def read_tuned(folder: Path) -> dict[str, Tensor]:
    """The trained weights that `PartialTuning.save` wrote, by the names of the parameters."""
    return {_parameter_name(name): x for name, x in Adapter.read(folder).tensors.items()}


def build_tuned(
    recipe: RecipeConfig, config: TuningConfig, assets: dict[str, bytes], newest: Path | None
) -> tuple[Model, PartialTuning, str]:
    """The model with its frozen and trainable parameters, its `PartialTuning`, and a report of the
    weights copied from the base.

    `newest`: the checkpoint to resume from. Raises ConfigError if the base does not exist, lacks a
    part of the model that is not trained here, or has changed since the checkpoint.
    """
    stored = Adapter.read(newest) if newest else None
    base = Path(stored.base) if stored else start_folder(recipe.start_from or "").resolve()
    torch.manual_seed(recipe.training.seed)
    model = Model(recipe.model, assets)
    names = set(model.state_dict())
    try:
        source = read_state(base, names)
        if stored:
            stored.require(source, names)
    except WeightsError as error:
        raise ConfigError(str(error)) from None
    report = copy_weights(model, source, str(base))
    new = {
        name
        for name, x in model.state_dict().items()
        if name not in source or source[name].shape != x.shape
    }
    require_base(model, {name for name in new if not _in_full(config, name)}, base)
    freeze(model, config, new)
    trained = {_adapter_name(name): x.numel() for name, x in _trainable(model)}
    report += (
        f"\n  tuning, {_described(config)}: {sum(trained.values()):,} numbers are trained, the"
        " others are frozen"
    )
    if stored:
        state = {_parameter_name(name): x for name, x in stored.tensors.items()}
        model.load_state_dict(state, strict=False)
    return model, PartialTuning(config, str(base), frozen_part(source, names, trained)), report


def require_base(model: nn.Module, new: Collection[str], base: Path) -> None:
    """Raise ConfigError if the base lacks weights that tuning cannot train.

    `new`: names of the weights that the base lacks. Tuning can train targets, and the parameters
    that a module lists in its attribute `new_in_tuning`.
    """
    trainable = (
        "targets.",
        *(
            f"{path}.{name}"
            for path, module in model.named_modules()
            for name in getattr(module, "new_in_tuning", ())
        ),
    )
    missing = sorted(name for name in new if not name.startswith(trainable))
    if missing:
        raise ConfigError(
            f"start_from: {base} lacks {', '.join(missing[:5])} ({len(missing)} in all) or has them"
            " in another shape, and tuning does not train these; use the model configuration of"
            " the base, with `base: RUN/recipe.yaml` in the recipe"
        )


def freeze(model: Model, config: TuningConfig, new: Set[str]) -> None:
    """Freeze all parameters except those in `new` and those that the method trains. The method
    trains only parameters that the model's tasks activate."""
    active = set(model.active_parameters(model.config.tasks))
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    trained = set(new) | {name for name in active - fixed if _in_full(config, name)}
    trained |= {
        name for name in (prompt_tuned(model) & active) - fixed if _way(config, name) == "prompt"
    }
    # a list, because parametrizations add modules
    for path, layer in list(linear_layers(model)):
        if f"{path}.weight" in active and _way(config, path) == "lora":
            change = LowRank(layer.weight, config.rank, config.alpha / config.rank)
            parametrize.register_parametrization(layer, "weight", change)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained or name != _adapter_name(name))


def _way(config: TuningConfig, name: str) -> str:
    """How a parameter is trained: as its stream, or else as `method` says."""
    part, modality = name.split(".")[:2]
    if part not in ("embeddings", "stream_encoders"):
        return config.method
    return config.streams.get(Modality(modality), config.method)


def _in_full(config: TuningConfig, name: str) -> bool:
    return _way(config, name) == "full"


def _described(config: TuningConfig) -> str:
    ways = (f"{modality.value} {way}" for modality, way in config.streams.items())
    return ", ".join([config.method, *ways])


def prompt_tuned(model: Model) -> set[str]:
    """Names of the parameters that prompt tuning trains: norms, and the parameters that a module
    lists in its attribute `tuned`, such as prompts and the similarity scale."""
    names = set()
    for path, module in _modules_outside_routes(model):
        names |= {f"{path}.{name}" for name in getattr(module, "tuned", ())}
        if isinstance(module, NORMS):
            names |= {f"{path}.{name}" for name, _ in module.named_parameters()}
    return names


def linear_layers(model: Model) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of the encoders by path, including experts."""
    for path, module in _modules_outside_routes(model):
        if path.startswith(("encoder.", STREAM)) and isinstance(module, nn.Linear):
            yield path, module


def _modules_outside_routes(model: Model) -> Iterator[tuple[str, nn.Module]]:
    """Modules by path, except those of routes: all tunings of a model select the same experts."""
    return (
        (path, module)
        for path, module in model.named_modules()
        if "route" not in path.split(".")[:-1]
    )


def peft_config(config: TuningConfig, tensors: Collection[str], base: str) -> dict[str, Any]:
    """`adapter_config.json` for peft's LoraConfig."""
    adapted = {name.rpartition(".lora_")[0] for name in tensors if ".lora_" in name}
    others = {name.rpartition(".")[0] for name in tensors if ".lora_" not in name}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(adapted),
        "modules_to_save": sorted(others) or None,
        "inference_mode": True,
    }


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, x) for name, x in model.named_parameters() if x.requires_grad)


def _adapter_name(name: str) -> str:
    """Name of a parameter in an adapter file. Low-rank factors have peft's names; other parameters
    keep their name."""
    path, inner, factor = name.partition(".parametrizations.weight.0.")
    return f"{path}.{factor}.weight" if inner else name


def _parameter_name(name: str) -> str:
    """Inverse of `_adapter_name`."""
    path, inner, factor = name.removesuffix(".weight").partition(".lora_")
    return f"{path}.parametrizations.weight.0.lora_{factor}" if inner else name

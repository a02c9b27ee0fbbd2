"""Conversion of models from Hugging Face Transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.config.errors import reading
from skillweave.interop.checkpoints import Checkpoint
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.interop.huggingface.family import Family, Head, find_head
from skillweave.interop.huggingface.folder import find_folder, read_hf_config
from skillweave.interop.huggingface.generation_settings import (
    read_generation_settings,
    stored_generation,
)
from skillweave.interop.huggingface.processor_files import read_processor_files
from skillweave.interop.huggingface.sentence_transformers import (
    dense_folders,
    is_sentence_model,
    read_lengths,
    sentence_head,
)
from skillweave.interop.huggingface.tokenizer_files import with_special_ids
from skillweave.interop.key_map import KeyMap
from skillweave.interop.model_loader import ModelLoader, match_weights
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.weights.files import FILE, About, stream_weights

CONVERTIBLE = "a Hugging Face model that can be converted"
ADAPTER_FILE = "adapter_config.json"


def from_hf(source: Any, config: Any = None) -> Model:
    """Convert a Hugging Face model. The result has its precision and is in evaluation mode.

    `source`: a model of Transformers, a folder that `save_pretrained` wrote, the id of a model of
    the hub (`org/name`), or a mapping of weights by name with its `config`.

    Raises ConfigError for a family or an option that has no counterpart here, and for a tokenizer
    with more tokens than the model's word embedding has rows. Raises WeightsError that names
    missing, unexpected and wrongly shaped weights.
    """
    if isinstance(source, str | Path):
        folder = find_folder(source)
        with reading(folder, CONVERTIBLE):
            return _open_folder(folder, _checkpoint(folder), config).load()
    by_name = isinstance(source, Mapping)
    state: Mapping[str, Tensor] = source if by_name else source.state_dict()
    config = config or getattr(source, "config", None)
    if config is None:
        raise ConfigError(
            "weights by name need the configuration that they belong to: from_hf(state, config=...)"
        )

    def read(name: str) -> Tensor:
        return state[name].detach().clone()

    where = type(source).__name__
    own = getattr(source, "generation_config", None)
    options = own.to_diff_dict() if own else None
    name = None if by_name else where
    return _open(config, name, state, read, where, generation=options).load()


def _checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder, dense_folders(folder) if is_sentence_model(folder) else ())


def _open_folder(folder: Path, checkpoint: Checkpoint, config: Any = None) -> ModelLoader:
    config = config or read_hf_config(folder)
    _require_whole(folder, config)
    return _open(config, None, checkpoint, checkpoint.__getitem__, str(folder), folder)


def _require_whole(folder: Path, config: Any) -> None:
    """Raise ConfigError for weights that are not all of the model, or not its numbers."""
    if (folder / ADAPTER_FILE).is_file():
        raise ConfigError(
            f"{folder / ADAPTER_FILE}: an adapter of peft, which changes the weights beside it;"
            " save the model with `merge_and_unload` first"
        )
    if getattr(config, "quantization_config", None):
        raise ConfigError(
            f"{folder}: quantization_config: the weights are quantized; save the model with"
            " floating-point weights (`dequantize`)"
        )


def _open(
    config: Any,
    architecture: str | None,
    stored: Iterable[str],
    read: Callable[[str], Tensor],
    where: str,
    folder: Path | None = None,
    generation: Mapping[str, Any] | None = None,
) -> ModelLoader:
    """The loader of the model that a Hugging Face configuration describes.

    `architecture`: None for the first one that the configuration names. `stored`, `read`: the names
    of its tensors, and how one is read. `folder`: holds processor files. `generation`: options of
    its generation, if there is no folder.
    """
    family, head = find_head(config, architecture)
    if folder is not None and is_sentence_model(folder):
        family, head = sentence_head(family, head, folder)
    names = family.canonical_names(stored, head.prefix)
    if head.omitted_by and not KeyMap(head.rules).count_known(names):
        head = head.without_targets()
    own_config, assets = family.read_config(config, head), {}
    if not _is_tied(own_config, family.key_map(head), names, read):
        lm = own_config.targets["lm"].model_copy(update={"tied": False})
        own_config = own_config.changed(targets={**own_config.targets, "lm": lm})
    if folder is not None:
        own_config, assets = read_processor_files(folder, own_config, config, family)
        generation = stored_generation(folder)
        if is_sentence_model(folder):
            own_config = read_lengths(folder, own_config)
    if not assets:
        own_config = with_special_ids(own_config, config, family.text_config)
    own_config = read_generation_settings(generation or {}, own_config, config, head)
    with torch.device("meta"):
        model = Model(own_config, assets)
    owner = f"family {family.model_type!r}"
    return match_weights(
        model, family.key_map(head), names, read, where, owner, lambda: _suggest(family, names)
    )


def _is_tied(
    config: ModelConfig, key_map: KeyMap, names: Mapping[str, str], read: Callable[[str], Tensor]
) -> bool:
    """Whether the output layer of a language model is tied. As in Transformers, one that the
    configuration ties has weights of its own if the checkpoint has others for it."""
    alias = f"{key_map.rules.get('targets.lm.output')}.weight"
    words = key_map.tied.get(alias, "")
    target = config.targets.get("lm")
    if target is None or not target.tied_to or not {alias, words} <= names.keys():
        return True
    return names[alias] == names[words] or torch.equal(read(names[alias]), read(names[words]))


def import_folder(folder: Path, out: Path) -> str:
    """Convert a Hugging Face model folder to ours, one tensor at a time."""
    checkpoint = _checkpoint(folder)
    with reading(folder, CONVERTIBLE):
        loader = _open_folder(folder, checkpoint)
    tensors = {}
    weights = loader.model.state_dict()
    for mapping in loader.mappings:
        dtype = checkpoint.dtype(loader.names[mapping.source.names[0]])
        tensors[mapping.name] = About(dtype, weights[mapping.name].shape)
    out.mkdir(parents=True, exist_ok=True)
    stream_weights(tensors, loader.weights(), out / FILE)
    loader.model.save_description(out)
    task = next(iter(loader.model.config.tasks))
    parameters = loader.model.count_parameters()
    return f"wrote {out}: {parameters:,} parameters, task {task}"


def _suggest(family: Family, names: Mapping[str, str]) -> str:
    """Names the family whose tensors these are, if it is another one."""

    def count(one: Family) -> int:
        return one.key_map(Head()).count_known(one.canonical_names(names.values()))

    likely = max(FAMILIES.values(), key=count)
    if count(likely) <= 2 * count(family):
        return ""
    return f"; the names are those of family {likely.model_type!r}"

"""Conversion of models to Hugging Face Transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.interop.checkpoints import write_shards
from skillweave.interop.huggingface.export_checks import FamilyMatch, find_family
from skillweave.interop.huggingface.family import Family, Head
from skillweave.interop.huggingface.generation_settings import FILE as GENERATION_FILE
from skillweave.interop.huggingface.generation_settings import set_generation_settings
from skillweave.interop.huggingface.json_files import write_json
from skillweave.interop.huggingface.processor_files import write_processor_files
from skillweave.interop.huggingface.sentence_transformers import (
    makes_sentence_vectors,
    without_target,
    write_sentence_files,
)
from skillweave.interop.huggingface.tokenizer_files import special_token_ids
from skillweave.interop.key_map import WeightMapping, abbreviate, export_weights
from skillweave.model.config import ModelConfig
from skillweave.model.folders import CONFIG_FILE
from skillweave.model.model import Model
from skillweave.weights.adapters import is_tuned, read_state, weights_file
from skillweave.weights.files import (
    SCALE,
    About,
    WeightsError,
    list_weights,
    read_assets,
    require_equal,
)

MAX_SHARD_SIZE = 5 * 2**30
"""Bytes of a file, at most."""


def to_hf(model: Model, family: str | None = None) -> Any:
    """Convert a model to the model of Transformers that computes the same, in evaluation mode. Of a
    model that sentence-transformers expresses it is the base model.

    `family`: a `model_type`; None: one that can express the configuration. Raises ConfigError that
    names the options that it cannot express.
    """
    found, model = _find(model, family)
    hf_model = _build(found, model)
    weights = _weights_by_kind(model)
    plan = plan_export(found.family, found.head, model, hf_model.state_dict())
    made = export_weights(plan.mappings, weights, plan.shapes)
    for alias, name in found.head.tied.items():
        if alias not in plan.names:
            continue
        if alias in made:  # Transformers ties what the weights untie
            _untie(hf_model, plan.names[alias])
        else:
            made[alias] = made[name]
    made |= {name: make(plan.shapes[name]) for name, make in plan.computed.items()}
    hf_model = hf_model.to(next(iter(weights.values())).dtype)
    state = {stored: made[name] for name, stored in plan.names.items() if name in made}
    hf_model.load_state_dict(state, strict=True)
    return hf_model.eval()


def _find(model: Model, family: str | None) -> tuple[FamilyMatch, Model]:
    """The family that expresses a model, or the base model of one whose target is expressed by
    modules of sentence-transformers, and that model."""
    try:
        return find_family(model.config, family), model
    except ConfigError:
        if not makes_sentence_vectors(model.config):
            raise
        base = without_target(model)
        return find_family(base.config, family), base


def _untie(hf_model: Any, name: str) -> None:
    path, _, own = name.rpartition(".")
    module = hf_model.get_submodule(path)
    setattr(module, own, torch.nn.Parameter(getattr(module, own).detach().clone()))


def _build(found: FamilyMatch, model: Model) -> Any:
    """A Hugging Face model that has the special tokens of ours and generates as ours does."""
    family, name, head, options, arguments = found
    ids = special_token_ids(model.config, model.assets)
    part = options.setdefault(family.text_config, {}) if family.text_config else options
    _require_padding(family, part, ids)
    part |= {option: number for option, number in ids.items() if part.get(option) is None}
    architecture = family.architecture(name)
    padding = getattr(architecture.config_class, "pad_token_id", None)
    # The default may be no token of a small vocabulary.
    if not ids and padding is not None and padding >= part.get("vocab_size", padding + 1):
        part.setdefault("pad_token_id", None)
    if classes := options.get("id2label"):
        options["label2id"] = {label: number for number, label in classes.items()}
    config = architecture.config_class(**options, architectures=[name])
    hf_model = architecture(config, **arguments)
    set_generation_settings(hf_model, model, head)
    return hf_model


def _require_padding(family: Family, options: Mapping[str, Any], ids: Mapping[str, int]) -> None:
    found, needed = ids.get("pad_token_id"), options.get("pad_token_id")
    if found is not None and needed is not None and found != needed:
        raise ConfigError(
            f"family {family.model_type!r} finds positions by padding, which must be token"
            f" {needed} of the tokenizer and is token {found}; train with its own tokenizer, or"
            f" with `position_offset: {found + 1}`"
        )


class ExportPlan(NamedTuple):
    """How the tensors of a Hugging Face model are made of our weights, by their names in the
    rules."""

    mappings: list[WeightMapping]
    names: dict[str, str]
    """Name in the rules → name in the model or its files."""
    shapes: dict[str, torch.Size]
    computed: dict[str, Callable[[torch.Size], Tensor]]
    """How tensors that are no weights of ours are made from their shapes, by name in the rules."""


def plan_export(
    family: Family, head: Head, model: Model, wanted: Mapping[str, Tensor]
) -> ExportPlan:
    """How the `wanted` tensors of an architecture are made of the weights of our model."""
    names = family.canonical_names(wanted, head.prefix)
    shapes = {name: wanted[stored].shape for name, stored in names.items()}
    heads = model.config.encoder.heads
    key_map = family.key_map(head)
    mappings = key_map.map_weights(_weights_by_kind(model), shapes, heads)
    computed = {name: make for name, make in key_map.computed.items() if name in names}
    return ExportPlan(mappings, names, shapes, computed)


def _weights_by_kind(model: Model) -> dict[str, Tensor]:
    """Our weights; those of a target have its kind in place of its name."""
    found = {}
    for name, x in model.state_dict().items():
        if name.startswith("targets."):
            _, target, rest = name.split(".", 2)
            name = f"targets.{model.config.targets[target].kind}.{rest}"
        found[name] = x
    return found


def export_folder(
    folder: Path, out: Path, family: str | None = None, max_shard_size: int = MAX_SHARD_SIZE
) -> str:
    """Convert a model folder of ours to a Hugging Face model, one tensor at a time.

    `max_shard_size`: bytes of a file, unless one tensor is larger.
    """
    from transformers.core_model_loading import revert_weight_conversion

    config = ModelConfig.from_file(folder / CONFIG_FILE)
    with torch.device("meta"):
        model = Model(config, read_assets(folder))
        found, base = _find(model, family)
        hf_model = _build(found, base)
    if config.sliced:
        model.drop_idle()
    dtype = _stored_dtype(folder, model)
    # Names and shapes in files differ from those in memory.
    saved = revert_weight_conversion(hf_model, hf_model.state_dict())
    unsaved = hf_model._keys_to_ignore_on_save or ()
    saved = {name: x for name, x in saved.items() if name not in unsaved}
    plan = plan_export(found.family, found.head, base, saved)
    exporter = _Exporter(folder, base, dtype, plan)
    out.mkdir(parents=True, exist_ok=True)
    write_shards(exporter.tensors(), exporter.read, out, max_shard_size)
    hf_model.config.dtype = dtype
    hf_model.config.save_pretrained(out)
    if hf_model.can_generate():
        # `save_pretrained` refuses options that have no effect, which many models have
        write_json(out / GENERATION_FILE, hf_model.generation_config.to_diff_dict())
    write_processor_files(model, out, found.family, found.head)
    if base is not model:
        own = [name for name in model.state_dict() if name.startswith("targets.")]
        state = read_state(folder, model.state_dict(), own) if own else {}
        write_sentence_files(
            config, {name.split(".", 2)[2]: state[name].to(dtype) for name in own}, out
        )
    return f"wrote {out}: {found.architecture}"


def _stored_dtype(folder: Path, model: Model) -> torch.dtype:
    """The type in which a model folder is exported. Raises WeightsError for weights that are not of
    the model."""
    if is_tuned(folder):
        return torch.float32
    file, state = weights_file(folder), model.state_dict()
    stored = list_weights(file)
    unexpected = [name for name in stored if not {name, name.removesuffix(SCALE)} & state.keys()]
    if unexpected:
        raise WeightsError(
            f"{file} does not fit its configuration; unexpected: {abbreviate(unexpected)}"
        )
    types = set(stored.values())
    return types.pop() if len(types) == 1 else torch.float32


class _Exporter:
    """Makes the tensors of a Hugging Face model from the weights in a folder of ours.

    Tensors that are made of the same weights are made at once and kept until others are asked for.
    """

    def __init__(self, folder: Path, model: Model, dtype: torch.dtype, plan: ExportPlan) -> None:
        self.folder, self.dtype, self.plan = folder, dtype, plan
        self.state = model.state_dict()
        self.own_names = dict(zip(_weights_by_kind(model), self.state, strict=True))
        groups: dict[tuple[str, ...], list[WeightMapping]] = {}
        for mapping in plan.mappings:
            groups.setdefault(mapping.source.names, []).append(mapping)
        self.groups = {plan.names[name]: group for names, group in groups.items() for name in names}
        """Stored name of a tensor → the mappings of the weights that it is made of."""
        self.made: dict[str, Tensor] = {}

    def tensors(self) -> dict[str, About]:
        """Type and shape of all tensors by their stored names."""
        shapes = {self.plan.names[name]: shape for name, shape in self.plan.shapes.items()}
        computed = [self.plan.names[name] for name in self.plan.computed]
        return {name: About(self.dtype, shapes[name]) for name in (*self.groups, *computed)}

    def read(self, stored: str) -> Tensor:
        """A tensor by its stored name."""
        for name, make in self.plan.computed.items():
            if self.plan.names[name] == stored:
                return make(self.plan.shapes[name]).to(self.dtype)
        if stored not in self.made:
            self.made.clear()
            group = self.groups[stored]
            weights = {mapping.name: self._weight(mapping.name) for mapping in group}
            made = export_weights(group, weights, self.plan.shapes)
            self.made = {self.plan.names[name]: x for name, x in made.items()}
        return self.made[stored]

    def _weight(self, name: str) -> Tensor:
        own = self.own_names[name]
        found = read_state(self.folder, self.state, [own])
        require_equal({own: self.state[own]}, found, str(weights_file(self.folder)))
        return found[own].to(self.dtype)

"""Folders of sentence-transformers: a base model of Transformers, and modules that make a vector of
its tokens, in both directions."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from skillweave.config import ConfigError, choose
from skillweave.config.reading import reading
from skillweave.interop.huggingface.family import Family, Head
from skillweave.interop.huggingface.json_files import read_json, write_json
from skillweave.interop.huggingface.tokenizer_files import SETTINGS as TOKENIZER_SETTINGS
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.weights.files import FILE, write_weights

MODULES = "modules.json"
SETTINGS = "sentence_bert_config.json"
OLDER = ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
"""Families in the name of that file in older folders."""
PROMPTS = "config_sentence_transformers.json"
TYPES = {
    "Transformer": "sentence_transformers.models.Transformer",
    "Pooling": "sentence_transformers.models.Pooling",
    "Dense": "sentence_transformers.models.Dense",
    "Normalize": "sentence_transformers.models.Normalize",
}
"""Last part of a module's type → what it is called in all versions."""
MODES = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "root_mean",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
"""Their pooling → ours, in the order in which several are concatenated."""
COMPARED = ("cosine", "contrastive", "similarity")
"""Kinds of targets that compare unit vectors of one pooling."""
FLAGS = {
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
"""Pooling → the end of the option `pooling_mode_...` in older versions."""
STATES = "last_hidden_state"
ACTIVATIONS = {
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Identity": "none",
}
KNOWN: dict[str, dict[str, Any]] = {
    "Transformer": {
        "max_seq_length": ...,
        "transformer_task": "feature-extraction",
        "module_output_name": "token_embeddings",
        "modality_config": {"text": {"method": "forward", "method_output_name": STATES}},
    },
    "Pooling": dict.fromkeys(
        (
            *("word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"),
            *(f"pooling_mode_{flag}" for flag in FLAGS.values()),
        ),
        ...,
    ),
    "Dense": {
        **dict.fromkeys(("in_features", "out_features", "bias", "activation_function"), ...),
        **dict.fromkeys(("module_input_name", "module_output_name"), "sentence_embedding"),
    },
}
"""Module → its options and the value that each must have, if it is not absent, empty or false;
`...` for any."""


def read_options(kind: str, file: Path) -> dict[str, Any]:
    """The options of a module. Raises ConfigError for those that have no counterpart here."""
    given, known = read_json(file), KNOWN[kind]
    for name, x in given.items():
        if x and known.get(name) not in (..., x):
            raise ConfigError(f"{file}: {name}={x!r} has no counterpart here")
    return given


def is_sentence_model(folder: Path) -> bool:
    """Whether sentence-transformers wrote a folder."""
    return (folder / MODULES).is_file()


def list_modules(folder: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module. Raises ConfigError for kinds that have no counterpart."""
    with reading(folder / MODULES, "a list of modules"):
        listed = json.loads((folder / MODULES).read_bytes())
        found = [(_last(one["type"], "sentence_transformers"), str(one["path"])) for one in listed]
    for kind, path in found:
        choose(TYPES, kind, f"kind of module in {folder / MODULES}")
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{folder / MODULES}: path {path!r} leads out of the folder")
    kinds = [kind for kind, _ in found]
    dense = kinds.count("Dense")
    normal = ["Transformer", "Pooling", *["Dense"] * dense]
    if kinds not in (normal, [*normal, "Normalize"]):
        raise ConfigError(
            f"{folder / MODULES}: {', '.join(kinds)}; only a Transformer, its Pooling, Dense layers"
            " and Normalize in this order have a counterpart here"
        )
    return found


def _last(name: Any, library: str) -> str:
    """The last part of the name of a class of a library, or the whole name of another class."""
    first, _, rest = str(name).partition(".")
    return rest.rpartition(".")[2] if first == library else str(name)


def dense_folders(folder: Path) -> list[str]:
    """The folders of the Dense modules, which hold weights."""
    return [path for kind, path in list_modules(folder) if kind == "Dense"]


def sentence_head(family: Family, head: Head, folder: Path) -> tuple[Family, Head]:
    """The base model of a family with the target that the modules describe.

    Raises ConfigError for settings that have no counterpart here.
    """
    encoders = [one for one in family.heads.values() if one.family]  # of T5, for instance
    bases = [*encoders, head, *family.heads.values()]
    base = next((one for one in bases if set(one.targets) <= {"pooled"}), None)
    if base is None:
        raise ConfigError(f"family {family.model_type!r} has no model without a head")
    unused = [str(source) for name, source in base.rules.items() if name.endswith("pooler")]
    decoder = ("decoder.", "lm_head.") if base.family else ()
    rules = {
        f"targets.pooled.dense.{i}": [f"{path}.linear", f"{family.prefix}{path}.linear"]
        for i, path in enumerate(dense_folders(folder))
    }
    return base.family or family, replace(
        base,
        targets={"pooled": _read_target(folder)},
        rules=rules,
        fields={},
        unused=(*base.unused, *(f"{name}." for name in unused), *decoder),
        omitted_by="",
    )


def _read_target(folder: Path) -> dict[str, Any]:
    modules, told = list_modules(folder), read_json(folder / PROMPTS)
    target: dict[str, Any] = {
        "hidden": False,
        "normalize": modules[-1][0] == "Normalize",
        "prompts": {name: text for name, text in (told.get("prompts") or {}).items() if text},
    }
    if default := told.get("default_prompt_name"):
        choose(told.get("prompts") or {}, default, f"default prompt in {folder / PROMPTS}")
    if default in target["prompts"]:
        target["default_prompt"] = default
    if told.get("similarity_fn_name", "cosine") not in ("cosine", None) and not target["normalize"]:
        raise ConfigError(
            f"{folder / PROMPTS}: similarity_fn_name={told['similarity_fn_name']!r} has no"
            " counterpart here without a module Normalize; vectors are compared by cosine"
        )
    dense = []
    for kind, path in modules:
        file = folder / path / "config.json"
        if kind == "Pooling":
            given = read_options(kind, file)
            target["pooling"] = _read_pooling(given, file, bool(target["prompts"]))
        elif kind == "Dense":
            dense.append(_read_dense(read_options(kind, file), file))
    return {**target, "dense": dense}


def _read_pooling(given: Mapping[str, Any], file: Path, prompted: bool) -> str | list[str]:
    if prompted and given.get("include_prompt") is False:
        raise ConfigError(f"{file}: include_prompt=False has no counterpart here")
    modes = given.get("pooling_mode")
    if modes is None:
        modes = [mode for mode, flag in FLAGS.items() if given.get(f"pooling_mode_{flag}")]
    names = [modes] if isinstance(modes, str) else modes or ["mean"]
    found = [choose(MODES, name, f"pooling in {file}") for name in names]
    return found[0] if len(found) == 1 else found


def _read_dense(given: Mapping[str, Any], file: Path) -> dict[str, Any]:
    name = _last(given.get("activation_function", "torch.nn.Tanh"), "torch")
    activation = choose(ACTIVATIONS, name, f"activation_function in {file}")
    return {
        "size": given["out_features"],
        "bias": given.get("bias", True),
        "activation": activation,
    }


def read_lengths(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration with the maximum length of texts. Raises ConfigError for a setting that has
    no counterpart here."""
    files = [folder / SETTINGS, *(folder / f"sentence_{name}_config.json" for name in OLDER)]
    settings = read_options("Transformer", next(filter(Path.is_file, files), files[0]))
    text = config.streams.text
    if text is None or config.decoder is not None:
        raise ConfigError(f"{folder}: sentences need a model that reads text and has no decoder")
    given = (
        settings.get("max_seq_length"),
        read_json(folder / TOKENIZER_SETTINGS).get("model_max_length"),
    )
    most = min([int(length) for length in given if length] or [text.max_length])
    if most >= text.max_length:
        return config
    text = text.model_copy(update={"max_tokens": most})
    return config.changed(streams=config.streams.model_copy(update={"text": text}))


def makes_sentence_vectors(config: ModelConfig) -> bool:
    """Whether a model is a base model and a target that modules of sentence-transformers
    express."""
    targets = list(config.targets.values())
    if len(targets) != 1 or list(config.streams.present()) != ["text"]:
        return False
    target: Any = targets[0]
    others = (getattr(target, name, None) for name in ("projection", "norm_epsilon"))
    bare = target.kind in COMPARED or (target.kind == "pooled" and not target.hidden)
    return bare and not any(others) and _poolings(target) == _ordered(target)


def _poolings(target: Any) -> list[str]:
    return [target.pooling] if isinstance(target.pooling, str) else [*target.pooling]


def _ordered(target: Any) -> list[str]:
    """Its poolings that have a counterpart, in the order in which they are concatenated there."""
    return [ours for ours in MODES.values() if ours in _poolings(target)]


def without_target(model: Model) -> Model:
    """The base model alone, which shares its parameters."""
    base = copy.copy(model)
    base._modules = {**model._modules, "targets": nn.ModuleDict()}
    tasks = {
        name: task.model_copy(update={"targets": {}}) for name, task in model.config.tasks.items()
    }
    base.config = model.config.changed(targets={}, tasks=tasks)
    return base


def write_sentence_files(config: ModelConfig, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the modules. `weights`: of the target, by name without its prefix."""
    target: Any = next(iter(config.targets.values()))
    text: Any = config.streams.text
    listed = list(_described(target, config.width))
    modules = []
    for i, (kind, path, about) in enumerate(listed):
        modules.append({"idx": i, "name": str(i), "path": path, "type": TYPES[kind]})
        if path:
            (folder / path).mkdir(exist_ok=True)
            write_json(folder / path / "config.json", about)
    paths = [path for kind, path, _ in listed if kind == "Dense"]
    for i, path in enumerate(paths):
        prefix = f"dense.{i}."
        own = {n.removeprefix(prefix): x for n, x in weights.items() if n.startswith(prefix)}
        write_weights({f"linear.{name}": x for name, x in own.items()}, folder / path / FILE)
    (folder / MODULES).write_text(json.dumps(modules, indent=2), "utf-8")
    most = min(text.max_length, text.max_tokens or text.max_length)
    write_json(folder / SETTINGS, {"max_seq_length": most, "do_lower_case": False})
    told = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    if target.kind == "pooled":
        told |= {"prompts": target.prompts, "default_prompt_name": target.default_prompt}
    write_json(folder / PROMPTS, told)


def _described(target: Any, width: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, folder and settings of each module."""
    yield "Transformer", "", {}
    poolings = _poolings(target)
    flags = {f"pooling_mode_{flag}": MODES[mode] in poolings for mode, flag in FLAGS.items()}
    yield "Pooling", "1_Pooling", {"word_embedding_dimension": width, **flags}
    size, number = width * len(poolings), 2
    for layer in getattr(target, "dense", ()):
        kinds = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
        about = {"in_features": size, "out_features": layer.size, "bias": layer.bias}
        name = kinds[layer.activation]
        module = "linear" if name == "Identity" else "activation"
        about["activation_function"] = f"torch.nn.modules.{module}.{name}"
        yield "Dense", f"{number}_Dense", about
        size, number = layer.size, number + 1
    if getattr(target, "normalize", True):  # vectors that are compared have unit length
        yield "Normalize", f"{number}_Normalize", {}

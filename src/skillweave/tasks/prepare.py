"""From a recipe as written to one that says everything: tokenisers, alphabets, label lists,
k-means, from training data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from skillweave.batch import Features, Modality
from skillweave.config import ConfigError
from skillweave.config.data import MASKED_SHARES, Split
from skillweave.config.streams import TextStream, TokenizerConfig
from skillweave.config.targets import (
    TRANSCRIPTS_ASSET,
    CTCTarget,
    MaskedImageTokenTarget,
    MaskedUnitTarget,
)
from skillweave.config.task import TaskConfig
from skillweave.data.processors import (
    build_processors,
    load_tokenizer,
    tokenizer_asset,
    train_tokenizer,
)
from skillweave.data.processors.base import BadInput
from skillweave.data.processors.tokenizer import read_tokenizer, special_names
from skillweave.data.processors.units import PatchModel, UnitModel
from skillweave.data.tokenized import Pieces
from skillweave.model.config import ModelConfig
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import UNITS, open_fields, task_of
from skillweave.tasks.labels import flat, with_labels
from skillweave.tasks.task import LOOKING, Task

STANDS_IN = {"contrastive": "similarity", "masked_pixels": "masked_autoencoder"}
"""Kind of target → the kind that learns the same, and may stand in its place."""
UNIT_SAMPLES = 500
"""Recordings or pictures that k-means is fitted on."""


def prepare(
    recipe: RecipeConfig, assets: dict[str, bytes] | None = None, base: ModelConfig | None = None
) -> tuple[RecipeConfig, dict[str, bytes]]:
    """The resolved recipe and the model's assets.

    `assets`: those of the run that training starts from; they are kept, so that both share their
    tokenisers. `base`: its model's configuration; it says what their special tokens are called, and
    may have more words than they have pieces. Raises ConfigError for tasks, targets and data that
    do not go together, before any training.
    """
    assets = dict(assets or {})
    recipe = with_classes(recipe)
    model = with_tasks(recipe)
    model = _with_tokenizers(recipe, model, assets, base)
    model = with_labels(recipe, model, assets)
    recipe = recipe.model_copy(update={"model": model})
    for target, fit in (("masked_unit", _fit_units), ("masked_image_token", _fit_patches)):
        asset = UNITS[target][0]
        name = next((name for name in recipe.tasks if task_of(recipe, name).target == target), None)
        if name and asset not in assets:
            assets[asset] = fit(recipe, model, name)
    for name, task in recipe.tasks.items():
        spec = model.targets[task.target or task_of(recipe, name).target]
        if isinstance(spec, CTCTarget) and spec.language and TRANSCRIPTS_ASSET not in assets:
            assets[TRANSCRIPTS_ASSET] = _transcripts(recipe, name, spec)
        if task_of(recipe, name).target == "contrastive" and task.batch_size < 2:
            raise ConfigError(
                f"tasks.{name}.batch_size: {task.batch_size}, but contrastive learning compares"
                " samples; at least 2"
            )
        if task_of(recipe, name).target in MASKED_SHARES:
            _, rows, columns = model.visual(task_of(recipe, name).spans[0].modality).grid
            block = task.masking.block
            if rows != columns or rows % block or rows == block:
                fault = f"{rows} × {columns} patches cannot be hidden in squares of {block}"
                raise ConfigError(
                    f"tasks.{name}.masking.block: {fault}; give a smaller divisor, and patches as"
                    " wide as high"
                )
        if task.pack and (
            task_of(recipe, name).target not in ("mlm", "lm")
            or len(task_of(recipe, name).spans) > 1
        ):
            remedy = "masked_text, or language_modelling with target: lm"
            raise ConfigError(
                f"tasks.{name}.pack: only samples of one span whose words are predicted share rows"
                f" ({remedy})"
            )
    return RecipeConfig.parse(recipe.model_dump(mode="json"), "resolved recipe"), assets


def with_classes(recipe: RecipeConfig, split: Split = "train") -> RecipeConfig:
    """The class names of naming tasks from the labels of a split, where the recipe leaves them
    open.

    Raises ConfigError for class names of a task that names no class, and for fewer than two.
    """
    tasks = dict(recipe.tasks)
    for name, config in recipe.tasks.items():
        task = task_of(recipe, name)
        if not task.names_classes:
            if config.classes:
                remedy = "a class list of a task with its own classifier stands under model.targets"
                raise ConfigError(
                    f"tasks.{name}.classes: {task.name} does not choose among class names; {remedy}"
                )
            continue
        found = (
            [] if config.classes else open_fields(recipe, name, split, whole=True).column("label")
        )
        labels = config.classes or sorted({str(value) for value in found if value is not None})
        if len(labels) < 2:
            raise ConfigError(
                f"tasks.{name}.classes: {len(labels)} in the {split} data; check the label column,"
                " or list them"
            )
        tasks[name] = TaskConfig.parse(
            {**config.model_dump(mode="json"), "classes": labels}, f"tasks.{name}"
        )
    return recipe.model_copy(update={"tasks": tasks})


def with_tasks(recipe: RecipeConfig) -> ModelConfig:
    """The model with its tasks from the catalogue, and only the parts that they use: streams,
    targets, decoder.

    Raises ConfigError for a task that needs a decoder which the recipe does not describe, or a
    target of another kind.
    """
    data = recipe.model.model_dump(mode="json")
    entries = [task_of(recipe, name) for name in recipe.tasks]
    if not any(task.decodes for task in entries):
        data["decoder"] = data["target_embedding"] = None
    used = {span.modality.value for task in entries for span in task.spans if not span.written}
    if (data["target_embedding"] or {}).get("tied"):
        used.add(Modality.TEXT.value)
    prompted = recipe.partial is not None and recipe.partial.method == "prompt"
    if recipe.partial and data["shared"] and used & {"text", "code"}:
        used |= {"text", "code"}  # the base's wordpieces are shared, and have to fit
    data["streams"] = {name: stream for name, stream in data["streams"].items() if name in used}
    if not {"text", "code"} <= used:
        data["shared"] = []
    if prompted:
        data["encoder"]["prompts"] = recipe.partial.prompts
    mentioned, data["targets"], data["tasks"] = data["targets"], {}, {}
    for name, config in recipe.tasks.items():
        task = task_of(recipe, name)
        if task.decodes and recipe.model.decoder is None:
            needs = "writes a text" if task.answer else "says `decoder: true`"
            raise ConfigError(
                f"tasks.{name} {needs}; give model.decoder and model.target_embedding"
            )
        text, own = recipe.model.streams.text, recipe.model.target_embedding
        if config.decoder and text and own and text.max_length > own.max_length:
            raise ConfigError(
                f"tasks.{name}: a decoder reads the text too; give model.target_embedding"
                f" max_length {text.max_length}"
            )
        targets = _targets(task, config.target or task.target, shared="word" in data["shared"])
        for target, spec in targets.items():
            data["targets"][target] = _mentioned(recipe, target, spec)
            kind = data["targets"][target]["kind"]
            if kind not in (task.target, STANDS_IN.get(task.target)):
                raise ConfigError(
                    f"tasks.{name}.target: {target!r} is of kind {kind!r}, but the task needs"
                    f" {task.target!r}"
                )
            if prompted and task.candidates == "class":
                corrections = {
                    **data["targets"][target].get("corrections", {}),
                    name: len(config.classes),
                }
                data["targets"][target] = {**data["targets"][target], "corrections": corrections}
        spans = [span.model_dump(mode="json") for span in task.span_configs]
        for also, spec in task.also.items():
            data["targets"].setdefault(also, mentioned.get(also, dict(spec)))
        data["tasks"][name] = {
            "spans": spans,
            "targets": dict.fromkeys([*targets, *task.also], 1.0),
        }
    return ModelConfig.parse(data, "model")


def _mentioned(recipe: RecipeConfig, target: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A target as the recipe has it, and otherwise as the task wants it; a pooling of which it says
    nothing is the task's."""
    given = recipe.model.targets.get(target)
    if given is None:
        return {**spec}
    said = given.model_fields_set
    return given.model_dump(mode="json") | {
        key: value for key, value in spec.items() if key == "pooling" and key not in said
    }


def _targets(task: Task, name: str, shared: bool) -> dict[str, dict[str, str]]:
    """The target of a task; masked words of code have their own where code has wordpieces of its
    own."""
    if name == STANDS_IN.get(task.target):
        return {name: {"kind": name}}
    if (
        task.target == "mlm"
        and not shared
        and any(span.modality is Modality.CODE for span in task.spans)
    ):
        return {name: {"kind": "mlm"}, f"{name}_code": {"kind": "mlm", "modality": "code"}}
    # the first token has read nothing then
    last = task.decodes or all(span.causal for span in task.spans)
    options = {"pooling": "last"} if last and task.target in LOOKING - {"span"} else {}
    if task.target == "masked_autoencoder":
        options = {"stream": task.spans[0].modality.value}
    return {name: {"kind": task.target, **options}}


def _with_tokenizers(
    recipe: RecipeConfig, model: ModelConfig, assets: dict[str, bytes], base: ModelConfig | None
) -> ModelConfig:
    data = model.model_dump(mode="json")
    for modality in (Modality.TEXT, Modality.CODE):
        answers = model.target_embedding if modality is Modality.TEXT else None
        stream: TextStream | None = getattr(model.streams, modality.value) or answers
        if stream is None:
            continue
        shares = "word" in model.shared
        if not (shares and modality is Modality.CODE):
            wanted = (Modality.TEXT, Modality.CODE) if shares else (modality,)
            name = tokenizer_asset(modality)
            own: TextStream | None = (
                getattr(base.streams, modality.value) if base and name in assets else None
            )
            words = own.vocabulary if own else 0
            special: dict[str, str] = {
                **((stream if stream.tokenizer.special else own or stream).tokenizer.special)
            }
            if name not in assets:
                special = special or _special_names(stream.tokenizer)
                assets[name] = _tokenizer(recipe, stream, wanted, special).to_str().encode()
            size = max(read_tokenizer(assets[name]).get_vocab_size(), words)
            readers = [data["streams"].get(sharer.value) for sharer in wanted]
            for reader in filter(None, [*readers, data["target_embedding"] if answers else None]):
                reader["vocabulary"] = size
                reader["tokenizer"]["special"] = special
            if answers:  # its texts may begin with another token than [CLS]
                before = base.target_embedding if base and name in assets else None
                named = answers.tokenizer.special or (before or answers).tokenizer.special
                data["target_embedding"]["tokenizer"]["special"] = {**special, **named}
    return ModelConfig.parse(data, "model")


def _special_names(config: TokenizerConfig) -> dict[str, str]:
    path = Path(config.path) if config.path else None
    return special_names(path if path.is_dir() else path.parent) if path else {}


def _tokenizer(
    recipe: RecipeConfig,
    stream: TextStream,
    modalities: tuple[Modality, ...],
    special: Mapping[str, str],
):
    if stream.tokenizer.path:
        return load_tokenizer(stream.tokenizer.path, special)
    return train_tokenizer(_texts(recipe, modalities), stream.tokenizer, stream.vocabulary)


def _texts(recipe: RecipeConfig, modalities: tuple[Modality, ...]) -> Iterator[str]:
    """The training texts of all tasks, each source once, and the names of classes."""
    seen: set[tuple[str, str]] = set()
    for name, config in recipe.tasks.items():
        if Modality.TEXT in modalities:
            yield from config.classes.values()
            yield from (
                re.split(r"\{text\}|\[MASK\]", config.template)
                if task_of(recipe, name).target == "prompt"
                else ()
            )
        task = task_of(recipe, name)
        for field in (field for modality in modalities for field in task.texts(modality)):
            if (str(config.data), field) in seen:
                continue
            seen.add((str(config.data), field))
            texts = open_fields(recipe, name, "train").column(field)
            if any(isinstance(text, Pieces) for text in texts):
                remedy = (
                    "name the tokeniser that is in the shards' folder, under"
                    " model.streams.text.tokenizer.path"
                )
                raise ConfigError(
                    f"tasks.{name}.data: shards hold wordpieces, on which no tokeniser can be"
                    f" trained; {remedy}"
                )
            yield from flat(texts)


def _transcripts(recipe: RecipeConfig, name: str, target: CTCTarget) -> bytes:
    """What the language model of a task's transcripts learns from; of further text the lines that
    the alphabet can spell."""
    texts = [*flat(open_fields(recipe, name, "train").column("transcript"))]
    if target.language_text:
        file = Path(target.language_text)
        if not file.is_file():
            raise ConfigError(
                f"language_text {file}: no such file; give a text file with a sentence a line"
            )
        texts += [
            line
            for line in file.read_text("utf-8").splitlines()
            if line and set(line) <= set(target.characters)
        ]
    return "".join(f"{text}\n" for text in texts).encode()


def _fit_units(recipe: RecipeConfig, model: ModelConfig, name: str) -> bytes:
    """k-means on the MFCC of training recordings (SkillNet section 4.2)."""
    stream, target = model.streams.sound, model.targets[recipe.tasks[name].target or "masked_unit"]
    if stream is not None and stream.filterbank:
        raise ConfigError(
            f"tasks.{name}: masked units are made of waveforms; give streams.sound the embedding"
            " waveform"
        )
    recordings = [
        (features.data, features.length) for features in _some(recipe, model, name, Modality.SOUND)
    ]
    if not recordings or stream is None or not isinstance(target, MaskedUnitTarget):
        raise ConfigError(
            f"tasks.{name}: no recording could be decoded, so there are no units to learn"
        )
    return UnitModel.fit(
        recordings, target.clusters, stream.rate, math.prod(stream.strides), recipe.training.seed
    ).to_bytes()


def _fit_patches(recipe: RecipeConfig, model: ModelConfig, name: str) -> bytes:
    """k-means on the patches of training pictures."""
    target = model.targets[recipe.tasks[name].target or "masked_image_token"]
    pictures = [features.data for features in _some(recipe, model, name, Modality.IMAGE)]
    if not pictures or not isinstance(target, MaskedImageTokenTarget):
        raise ConfigError(
            f"tasks.{name}: no picture could be decoded, so there are no visual tokens to learn"
        )
    return PatchModel.fit(
        pictures, target.vocabulary, model.picture.patch, recipe.training.seed
    ).to_bytes()


def _some(
    recipe: RecipeConfig, model: ModelConfig, name: str, modality: Modality
) -> Iterator[Features]:
    """`UNIT_SAMPLES` training samples of a task, as the model reads them."""
    source = open_fields(recipe, name, "train")
    wordless = model.model_copy(
        update={"streams": model.streams.model_copy(update={"text": None, "code": None})}
    )
    processor = build_processors(wordless, {}, recipe.limits)[modality]
    for row in np.random.default_rng(recipe.training.seed).permutation(len(source))[:UNIT_SAMPLES]:
        try:
            yield processor(source[int(row)][modality.value])
        except BadInput:
            continue  # listed when training meets it

"""From a recipe as written to one that says everything: the model with its tasks, tokenizers, class
lists, alphabets and fitted files, all taken from the training data where the recipe leaves them
open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from skillweave.batch import Features, Modality
from skillweave.components.targets import TARGETS, TargetConfig
from skillweave.components.targets.base import class_names
from skillweave.config import ConfigError, choose
from skillweave.config.data import Split
from skillweave.config.streams import TextStream, TokenizerConfig, TrainedTokenizerConfig
from skillweave.config.task import TaskConfig, TaskSettings
from skillweave.data.processors import (
    build_processor,
    load_tokenizer,
    tokenizer_asset,
    train_tokenizer,
)
from skillweave.data.processors.base import BadInput
from skillweave.data.processors.tokenizer import read_tokenizer, special_names
from skillweave.data.sources.pinning import change, pin
from skillweave.data.tokenized import TokenIds
from skillweave.data.values import texts_of
from skillweave.metrics import METRICS
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.recipe import RecipeConfig
from skillweave.tasks import TASKS
from skillweave.tasks.dataset import TaskDataset, open_dataset, open_fields
from skillweave.tasks.task import ResolvedTask, Task

FITTED_SAMPLES = 500
"""Recordings or pictures that k-means is fitted on."""


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe in which nothing is open, and the tasks and files of its model.

    `recipe`: its `model` is complete, and it gives the same again when it is read from a run.
    `assets`: the model's files, by name. `tasks`: by name.
    """

    recipe: RecipeConfig
    assets: Mapping[str, bytes]
    tasks: Mapping[str, ResolvedTask]

    @property
    def model(self) -> ModelConfig:
        """The model's configuration."""
        return self.recipe.model

    def task(self, name: str) -> ResolvedTask:
        """A task by name. Raises ConfigError with the nearest valid name."""
        return choose(self.tasks, name, "task")

    def dataset(self, name: str, split: Split, training: bool = False) -> TaskDataset:
        """A task's samples. `training`: whether they are augmented and drawn anew. Raises
        ConfigError for data that cannot be read."""
        task, config = self.task(name), self.recipe.tasks[name]
        multiple = self.recipe.training.pad_to_multiple_of
        return open_dataset(task, config, split, self.assets, multiple, training)

    def pinned(self) -> ResolvedRecipe:
        """The same with absolute paths, and fingerprints of the data. Raises ConfigError for data
        whose fingerprint is another."""
        tasks = {}
        for name, config in self.recipe.tasks.items():
            data = pin(config.data, self.task(name).entry.fields)
            tasks[name] = config.model_copy(update={"data": data})
        start = self.recipe.start_from
        start = str(Path(start).absolute()) if start and Path(start).exists() else start
        recipe = self.recipe.model_copy(update={"tasks": tasks, "start_from": start})
        return replace(self, recipe=recipe)

    def require_unchanged(self, split: Split, tasks: Iterable[str] | None = None) -> None:
        """Raise ConfigError when data of a split have other contents than when the run began. Of
        data that cannot be opened, whoever reads them says what is wrong."""
        changes = []
        for name in tasks or self.tasks:
            fields, data = self.task(name).entry.fields, self.recipe.tasks[name].data
            with suppress(ConfigError):
                if told := change(data, fields, split):
                    changes.append(f"  - {name}: {told}")
        if changes:
            raise ConfigError(
                "the data of the run are not what they were; restore them, or name those to"
                " measure with --data TASK=PATH\n" + "\n".join(changes)
            )


def resolve(
    recipe: RecipeConfig,
    assets: Mapping[str, bytes] | None = None,
    base: ModelConfig | None = None,
) -> ResolvedRecipe:
    """The resolved recipe.

    `assets`: those of the run that training starts from; they are kept, so that both share their
    tokenizers. `base`: its model's configuration; it says what their special tokens are called and
    in which order its labels stand, and may have more words than the tokenizer has tokens. Raises
    ConfigError for tasks, targets and data that do not go together, before any training.
    """
    files = dict(assets or {})
    recipe = with_classes(recipe)
    model = model_with_tasks(recipe)
    model = _with_tokenizers(recipe, model, files, base)
    model = _with_fitted_settings(recipe, model, files, base)
    recipe = recipe.model_copy(update={"model": model})
    tasks = {name: resolved_task(model, name) for name in recipe.tasks}
    for name, task in tasks.items():
        _check(recipe.tasks[name], task)
        if task.target.assets - files.keys():
            files |= task.target.fit_assets(_TrainingData(recipe, task, files), model)
    return ResolvedRecipe(recipe, files, tasks)


def resolved(recipe: RecipeConfig, assets: Mapping[str, bytes]) -> ResolvedRecipe:
    """A recipe that was resolved before, such as a run's, with the files of its model."""
    tasks = {name: resolved_task(recipe.model, name) for name in recipe.tasks}
    return ResolvedRecipe(recipe, assets, tasks)


def resolved_task(model: ModelConfig, name: str) -> ResolvedTask:
    """A task of a model, as its configuration describes it.

    Raises ConfigError with the nearest valid name for an unknown task or entry of the catalogue.
    """
    task = choose(model.tasks, name, "task")
    target = next(iter(task.targets), None)
    if target is None:
        raise ConfigError(f"task {name!r} has no target; it encodes inputs, and answers nothing")
    settings = task.settings
    if not settings.kind and name not in TASKS:
        kind = _kind_of(task, model.targets[target], model)
        if not kind:
            raise ConfigError(
                f"task {name!r} has the inputs of no kind of task that learns by its target"
                f" {target!r}; it gives vectors: skillweave features"
            )
        settings = settings.model_copy(update={"kind": kind})
    entry = bound_entry(name, settings, model.targets[target], model)
    return ResolvedTask(name, entry, settings, model, target, task.columns)


def _kind_of(task: ModelTask, target: TargetConfig, model: ModelConfig) -> str:
    """The entry of the catalogue that reads the same inputs and learns by such a target, for a
    converted model, whose tasks have names of their own; empty where there is none."""
    own = [(span.modality, span.encoder_pass) for span in task.spans]
    able = {
        kind: entry
        for kind, entry in TASKS.items()
        if entry.inferred and entry.learns_by(type(target)) and not entry.prompted_by(type(target))
    }
    # Hugging Face counts a question and its text as one input
    for view in (list, set):
        for kind, entry in able.items():
            if view(own) == view((span.modality, span.encoder_pass) for span in entry.spans):
                return kind
    for kind, entry in able.items():  # the target may change the spans
        bound = entry.bind(target, model, task.settings)
        if own == [(span.modality, span.encoder_pass) for span in bound.spans]:
            return kind
    return ""


def bound_entry(
    name: str, settings: TaskSettings, target: TargetConfig | None, model: ModelConfig
) -> Task:
    """The catalogue's entry of a task, bound to a model."""
    kind = settings.kind or name
    try:
        entry = TASKS.find(kind)
    except ConfigError as error:
        raise ConfigError(f"tasks.{name} has no layout, set its `kind`: {error}") from None
    return entry.bind(target, model, settings)


def recipe_entry(recipe: RecipeConfig, name: str) -> Task:
    """The entry of a recipe's task, bound to the recipe's model before its targets are known."""
    config = choose(recipe.tasks, name, "task")
    target = recipe.model.targets.get(config.target or "")
    if target is None and config.target in TARGETS:
        target = TARGETS[config.target]()
    return bound_entry(name, config.settings, target, recipe.model)


def with_classes(recipe: RecipeConfig, split: Split = "train") -> RecipeConfig:
    """The class names of naming tasks and prompts from the labels of a split, where the recipe
    leaves them open.

    Raises ConfigError for class names of a task that names no class, and for fewer than two.
    """
    tasks = dict(recipe.tasks)
    for name, config in recipe.tasks.items():
        entry = recipe_entry(recipe, name)
        if not entry.names_classes:
            if config.classes:
                raise ConfigError(
                    f"tasks.{name}.classes: {entry.name} does not choose among class names; list"
                    " the classes of a task with its own classifier under model.targets"
                )
            continue
        classes, origin = config.classes, "listed"
        if not classes:
            task = ResolvedTask(name, entry, config.settings, recipe.model, "")
            labels = open_fields(task, config, split, whole=True).column("label")
            classes, origin = {one: one for one in class_names(labels, 0)}, f"in the {split} data"
        if len(classes) < 2:
            raise ConfigError(
                f"tasks.{name}.classes: {len(classes)} {origin}; check the label column, or list"
                " them"
            )
        tasks[name] = config.model_copy(update={"classes": classes})
    return recipe.model_copy(update={"tasks": tasks})


def model_with_tasks(recipe: RecipeConfig) -> ModelConfig:
    """The model with its tasks from the catalogue, and only the parts that they use: streams,
    targets, decoder.

    Raises ConfigError for a task that needs a decoder which the recipe does not describe, or a
    target of another kind.
    """
    model = recipe.model
    entries = {name: recipe_entry(recipe, name) for name in recipe.tasks}
    decodes = any(entry.decodes for entry in entries.values())
    embedding = model.target_embedding if decodes else None
    used = {s.modality for e in entries.values() for s in e.spans if not s.written}
    if embedding is not None and embedding.tied:
        used.add(Modality.TEXT)
    words = {Modality.TEXT, Modality.CODE}
    if recipe.partial and model.shared and used & words:
        used |= words  # the base's tokens are shared, and have to fit
    unused = {m.value: None for m in model.streams.present() if m not in used}
    shared = model.shared if words <= used else []
    prompted = recipe.partial is not None and recipe.partial.method == "prompt"
    encoder = model.encoder
    if prompted:
        settings = {**encoder.model_dump(), "prompts": recipe.partial.prompts}
        encoder = type(encoder).parse(settings, f"tuning by prompts of encoder {encoder.name!r}")
    small = model.model_copy(update={"shared": shared})
    targets: dict[str, TargetConfig] = {}
    tasks: dict[str, ModelTask] = {}
    for name, entry in entries.items():
        config = recipe.tasks[name]
        _check_decoder(recipe, name, entry)
        own = _targets(recipe, small, name, entry)
        if prompted and entry.candidates == "class":
            first, target = next(iter(own.items()))
            before = getattr(targets.get(first, target), "corrections", {})
            classes = {**before, name: len(config.classes)}
            own = {first: target.model_copy(update={"corrections": classes})}
        targets |= own
        for also, given in entry.also.items():
            kind = TARGETS.find(given["kind"])
            targets.setdefault(also, model.targets.get(also) or kind.parse(given, also))
        tasks[name] = ModelTask(
            spans=entry.span_configs,
            targets=dict.fromkeys([*own, *entry.also], 1.0),
            settings=config.settings,
            columns=config.data.columns,
        )
    return model.changed(
        streams=model.streams.model_copy(update=unused),
        shared=shared,
        encoder=encoder,
        decoder=model.decoder if decodes else None,
        target_embedding=embedding,
        targets=targets,
        tasks=tasks,
        limits=recipe.limits,
        precision=recipe.training.precision,
    )


def _check_decoder(recipe: RecipeConfig, name: str, entry: Task) -> None:
    model = recipe.model
    if entry.decodes and model.decoder is None:
        needs = "writes a text" if entry.answer_field else "sets `decoder: true`"
        raise ConfigError(f"tasks.{name} {needs}; give model.decoder and model.target_embedding")
    text, own = model.streams.text, model.target_embedding
    if entry.reread and text and own and text.max_length > own.max_length:
        raise ConfigError(
            f"tasks.{name}: a decoder reads the text too; give model.target_embedding max_length"
            f" {text.max_length}"
        )


def _targets(
    recipe: RecipeConfig, model: ModelConfig, name: str, entry: Task
) -> dict[str, TargetConfig]:
    """The targets of a task: as the recipe gives them, and otherwise as the task wants them."""
    wanted = recipe.tasks[name].target or entry.targets[0]
    given = recipe.model.targets.get(wanted)
    if given is None:
        named = TARGETS.get(wanted)
        kind = wanted if named and entry.learns_by(named) else entry.targets[0]
        given = TARGETS.find(kind)()
    if not entry.learns_by(type(given)):
        raise ConfigError(
            f"tasks.{name}.target: {wanted!r} is of kind {given.kind!r}, but the task needs"
            f" {entry.targets[0]!r}"
        )
    found = entry.bound_targets(wanted, given, model)
    return {
        one: recipe.model.targets.get(one, target) if one != wanted else target
        for one, target in found.items()
    }


def _check(config: TaskConfig, task: ResolvedTask) -> None:
    """Raise ConfigError for settings of a task that do not go together."""
    if config.prompting.shots:
        raise ConfigError(
            f"tasks.{task.name}.prompting.shots: worked examples are for `evaluate --zero-shot`; a"
            " training learns from all rows. Leave shots out"
        )
    for metric in config.metrics:
        if METRICS.find(metric).compute is None:
            raise ConfigError(f"tasks.{task.name}.metrics: {metric!r} is no further metric")
    if task.compares_samples and config.batch_size < 2:
        raise ConfigError(
            f"tasks.{task.name}.batch_size: {config.batch_size}, but contrastive learning compares"
            " samples; at least 2"
        )
    if config.batch_tokens and (task.compares_samples or config.batch_by):
        raise ConfigError(
            f"tasks.{task.name}.batch_tokens: samples that are compared, or grouped by batch_by,"
            " come by number; give batch_size"
        )
    alone = len(task.model.tasks[task.name].targets) == 1
    if config.chunk_size and not (task.target.compares_vectors and alone):
        raise ConfigError(
            f"tasks.{task.name}.chunk_size is for contrastive learning, and target"
            f" {task.target.kind!r} does not need it: lower batch_size, and raise"
            " training.gradient_accumulation_steps"
        )
    if task.target.mask_ratio is not None:
        _, rows, columns = task.model.visual(task.entry.spans[0].modality).grid
        block = config.masking.block
        if rows != columns or rows % block or rows == block:
            raise ConfigError(
                f"tasks.{task.name}.masking.block: {rows} × {columns} patches cannot be hidden in"
                f" squares of {block}; give a smaller divisor, and patches as wide as high"
            )
    if config.pack and (not task.target.packable or len(task.entry.spans) > 1):
        raise ConfigError(
            f"tasks.{task.name}.pack: only samples of one span whose tokens are predicted share"
            " rows (masked_text, or language_modelling with target: lm)"
        )
    for encoder in task.model.encoders_of(task.entry.spans[0].modality):
        if config.pack and not encoder.packable:
            raise ConfigError(
                f"tasks.{task.name}.pack: an encoder {encoder.name!r} would read on from one sample"
                " into the next; leave pack out, or use a transformer"
            )


def _with_fitted_settings(
    recipe: RecipeConfig,
    model: ModelConfig,
    assets: Mapping[str, bytes],
    base: ModelConfig | None,
) -> ModelConfig:
    """Class lists, alphabets and scales from the training data, of which any fraction has the
    same. Labels that the base knows have its order."""
    targets = dict(model.targets)
    for name, target in model.targets.items():
        if not target.open_settings:
            continue
        sharing = [task for task in model.tasks if next(iter(model.tasks[task].targets)) == name]
        data = [_TrainingData(recipe, resolved_task(model, task), assets) for task in sharing]
        if not data:
            continue
        try:
            values = target.fit(data)
        except ConfigError as error:
            where = "" if str(error).startswith("tasks.") else f"model.targets.{name}: "
            raise ConfigError(f"{where}{error}") from None
        known = base.targets.get(name) if base else None
        if known is not None and type(known) is type(target):
            values = target.fitted_like(values, known)
        targets[name] = target.model_copy(
            update={setting: values[setting] for setting in target.open_settings}
        )
    return model.changed(targets=targets)


@dataclass(frozen=True)
class _TrainingData:
    """See `skillweave.components.targets.base.TrainingData`."""

    recipe: RecipeConfig
    task: ResolvedTask
    assets: Mapping[str, bytes]

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def settings(self) -> TaskSettings:
        return self.task.settings

    @property
    def seed(self) -> int:
        return self.recipe.training.seed

    def column(self, field: str, whole: bool = True) -> list[Any]:
        config = self.recipe.tasks[self.name]
        return open_fields(self.task, config, "train", whole).column(field)

    def features(self, modality: Modality) -> Iterator[Features]:
        source = open_fields(self.task, self.recipe.tasks[self.name], "train")
        streams = self.task.model.streams
        wordless = streams.model_copy(update={"text": None, "code": None})
        model = self.task.model.model_copy(update={"streams": wordless})
        processor = build_processor(model, {}, modality, self.recipe.limits)
        order = np.random.default_rng(self.seed).permutation(len(source))
        for row in order[:FITTED_SAMPLES]:
            try:
                yield processor(source[int(row)][modality.value])
            except BadInput:
                continue  # training lists it

    def token_ids(self, text: str) -> list[int]:
        tokenizer = read_tokenizer(self.assets[tokenizer_asset(Modality.TEXT)])
        return tokenizer.encode(text, add_special_tokens=False).ids


def _with_tokenizers(
    recipe: RecipeConfig, model: ModelConfig, assets: dict[str, bytes], base: ModelConfig | None
) -> ModelConfig:
    """The model with the sizes and special tokens of its tokenizers, which are added to the
    assets."""
    for modality in (Modality.TEXT, Modality.CODE):
        shares = "word" in model.shared
        if shares and modality is Modality.CODE:
            continue
        answers = model.target_embedding if modality is Modality.TEXT else None
        readers = model.tokenizer_readers(modality)
        if not readers:
            continue
        stream = readers[0]
        wanted = (Modality.TEXT, Modality.CODE) if shares else (modality,)
        name = tokenizer_asset(modality)
        known = base if base and name in assets else None
        owned = known.tokenizer_readers(modality) if known else []
        named = stream if stream.tokenizer.special else next(iter(owned), stream)
        special: dict[str, str] = dict(named.tokenizer.special)
        if name not in assets:
            special = special or _special_names(stream.tokenizer)
            assets[name] = _tokenizer(recipe, stream, wanted, special).to_str().encode()
        elif stream.tokenizer.path:
            _require_same_tokenizer(assets[name], stream.tokenizer.path, modality)
        tokens = read_tokenizer(assets[name], name).get_vocab_size()
        size = max([tokens, *(before.vocabulary for before in owned)])
        streams = {
            sharer.value: _with_vocabulary(reader, size, special)
            for sharer in wanted
            if (reader := getattr(model.streams, sharer.value)) is not None
        }
        changes: dict[str, Any] = {"streams": model.streams.model_copy(update=streams)}
        if answers:  # its texts may begin with another token than [CLS]
            before = known.target_embedding if known else None
            naming = answers if answers.tokenizer.special else before or answers
            own_names = {**special, **naming.tokenizer.special}
            changes["target_embedding"] = _with_vocabulary(answers, size, own_names)
        model = model.changed(**changes)
    return model


def _require_same_tokenizer(asset: bytes, path: str, modality: Modality) -> None:
    """Raise ConfigError where a recipe names another tokenizer than that of the model it starts
    from, whose words would get the vectors of others. A file that is gone is not read."""
    if not Path(path).exists():
        return
    own, named = read_tokenizer(asset).get_vocab(), load_tokenizer(path).get_vocab()
    if own.items() <= named.items() or named.items() <= own.items():
        return  # one of them has further special tokens, or new words
    same = len(own.items() & named.items())
    raise ConfigError(
        f"model.streams.{modality.value}.tokenizer.path: {path} is another tokenizer than that of"
        f" the model whose weights are taken: {same:,} of its {len(own):,} tokens are the same;"
        " leave path out, or start from a model with this tokenizer"
    )


def _with_vocabulary(stream: Any, size: int, special: Mapping[str, str]) -> Any:
    tokenizer = stream.tokenizer.with_special_tokens(special)
    return stream.model_copy(update={"vocabulary": size, "tokenizer": tokenizer})


def _special_names(config: TokenizerConfig) -> dict[str, str]:
    if not config.path:
        return {}
    path = Path(config.path)
    return special_names(path if path.is_dir() else path.parent)


def _tokenizer(
    recipe: RecipeConfig,
    stream: TextStream,
    modalities: Sequence[Modality],
    special: Mapping[str, str],
) -> Tokenizer:
    if isinstance(stream.tokenizer, TrainedTokenizerConfig):
        return train_tokenizer(_texts(recipe, modalities), stream.tokenizer, stream.vocabulary)
    if stream.tokenizer.path is None:
        raise ConfigError(
            "a tokenizer with special tokens is loaded, not trained; give its path under"
            " model.streams, or start_from a model that has it"
        )
    return load_tokenizer(stream.tokenizer.path, special)


def _texts(recipe: RecipeConfig, modalities: Sequence[Modality]) -> Iterator[str]:
    """The training texts of all tasks, each source once, and the names of classes."""
    seen: set[tuple[str, str]] = set()
    for name, config in recipe.tasks.items():
        entry = recipe_entry(recipe, name)
        if Modality.TEXT in modalities:
            yield from config.classes.values()
            yield from entry.template_texts(config.settings)
        task = ResolvedTask(name, entry, config.settings, recipe.model, "")
        for field in (f for modality in modalities for f in entry.text_fields(modality)):
            if (str(config.data), field) in seen:
                continue
            seen.add((str(config.data), field))
            texts = open_fields(task, config, "train").column(field)
            if any(isinstance(text, TokenIds) for text in texts):
                raise ConfigError(
                    f"tasks.{name}.data: shards hold token ids, on which no tokenizer can be"
                    " trained; name the tokenizer that is in the shards' folder, under"
                    " model.streams.text.tokenizer.path"
                )
            yield from texts_of(texts)

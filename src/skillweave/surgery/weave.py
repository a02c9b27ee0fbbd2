"""One model of several skills from models of one skill each: every skill's weights begin as its own
pretrained model's."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from skillweave.batch import Modality
from skillweave.config import ConfigError, choose
from skillweave.config.streams import TextStream
from skillweave.data.processors import tokenizer_asset
from skillweave.data.processors.tokenizer import read_tokenizer
from skillweave.inference.loading import load
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.surgery.provenance import Origin, by_place, place, skill_owners
from skillweave.tasks.resolve import model_with_tasks, resolve

WORDS = re.compile(r"shared\.word\.weight|embeddings\.(\w+)\.content\.word\.weight")
"""Tables with a row per wordpiece; a masked-language target's bias is another."""


class Woven(NamedTuple):
    """A model made of others, and where each of its weights comes from."""

    model: Model
    origins: dict[str, Origin]


@dataclass(frozen=True)
class Source:
    """A pretrained model that gives the weights of one modality; `label` is how the user named
    it."""

    modality: Modality
    label: str
    model: Model

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """All its weights, by name."""
        return self.model.state_dict()

    @cached_property
    def places(self) -> dict[str, list[str]]:
        """Their names, by the name they would have without experts."""
        return by_place(self.weights)

    @cached_property
    def own(self) -> set[str]:
        """Names of its weights of the modality's skill."""
        return {
            name
            for name, modalities in skill_owners(self.model).items()
            if self.modality in modalities
        }

    def counterpart(self, name: str) -> str | None:
        """Its weight that stands where another model's weight `name` stands; of several experts its
        own skill's, or the same."""
        if WORDS.fullmatch(name):
            names = [f"embeddings.{self.modality.value}.content.word.weight", "shared.word.weight"]
            return next((n for n in names if n in self.weights), None)
        there = self.places.get(place(name), [])
        if len(there) == 1:
            return there[0]
        return next((n for n in there if n in self.own), name if name in there else None)


def weave(
    recipe: RecipeConfig, models: Mapping[str, str | Path], shared: str | None = None
) -> Woven:
    """The model of a recipe, whose weights come from `models` (modality → run or model folder)
    where the shapes agree.

    A stream's embedding and a skill's experts come from the model of their modality: from its
    experts of that skill, or from its dense layers. What all skills share comes from the model of
    the modality `shared`, the first one when absent; a target from the first model, for a modality
    of its tasks, that has it with the same settings. Word embeddings are matched by wordpiece. What
    finds no weight keeps the initialisation that training from nothing would have (seed
    `training.seed`). Raises ConfigError for a modality without a stream, a folder without a model,
    and a model that does not fit.
    """
    if not models:
        raise ConfigError("give at least one model to weave from, such as text=runs/texts")
    config = model_with_tasks(recipe)
    sources = [_open(config, modality, path) for modality, path in models.items()]
    lead = (
        choose({s.modality.value: s for s in sources}, shared, "model to share")
        if shared
        else sources[0]
    )
    words = next(
        (source.model.config for source in sources if source.modality is Modality.TEXT), None
    )
    ready = resolve(recipe, _assets(config, sources), words)
    recipe, assets = ready.recipe, ready.assets
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        model = Model(recipe.model, assets)
    owners, own, taken, origins = skill_owners(model), model.state_dict(), {}, {}
    for name, fresh in own.items():
        givers = _givers(name, model.config, sources, owners.get(name), lead)
        attempts = [
            *(_take(name, fresh, model, source) for source in givers),
            (None, Origin(note=_absence(name))),
        ]
        taken[name], origins[name] = next((a for a in attempts if a[0] is not None), attempts[0])
    _require_use(sources, origins, owners)
    model.load_state_dict(
        {name: fresh if taken[name] is None else taken[name] for name, fresh in own.items()}
    )
    return Woven(model.eval(), origins)


def _open(config: ModelConfig, name: str, path: str | Path) -> Source:
    """Raises ConfigError where the recipe or the model at `path` has no stream for the modality."""
    modality = Modality(choose({m.value: m for m in Modality}, name, "modality"))
    label = f"{modality.value}={path}"
    if modality not in config.streams.present():
        raise ConfigError(
            f"{label}: no task of the recipe uses {modality.value!r}; add one, or leave this"
            " model out"
        )
    model = load(path)
    if modality not in (held := model.config.streams.present()):
        raise ConfigError(
            f"{label}: that model has no stream {modality.value!r}, only {', '.join(held)}"
        )
    return Source(modality, label, model)


def _assets(config: ModelConfig, sources: list[Source]) -> dict[str, bytes]:
    """The tokenisers of those models that made them for all modalities that are to use them, and
    sound clusters.

    A recipe that names a tokeniser's `path` gets that one; any other is trained on its texts.
    """
    assets: dict[str, bytes] = {}
    fitted = frozenset().union(*(target.assets for target in config.targets.values()))
    for source in sources:
        modality, theirs = source.modality, source.model.config
        stream = getattr(config.streams, modality.value)
        if (
            isinstance(stream, TextStream)
            and not stream.tokenizer.path
            and config.sharers(modality) <= theirs.sharers(modality)
        ):
            assets.setdefault(_tokenizer(config, modality), _tokenizer_of(source.model, modality))
        for name in fitted & source.model.assets.keys():
            assets.setdefault(name, source.model.assets[name])
    return assets


def _tokenizer(config: ModelConfig, modality: Modality) -> str:
    """The asset that a modality's wordpieces are in: with `word` shared, text's."""
    return tokenizer_asset(Modality.TEXT if len(config.sharers(modality)) > 1 else modality)


def _tokenizer_of(model: Model, modality: Modality) -> bytes:
    """Raises ConfigError for a model that was saved without it."""
    name = _tokenizer(model.config, modality)
    if name not in model.assets:
        raise ConfigError(
            f"no {name} among the model's assets, so its {modality.value} wordpieces are unknown;"
            " save it with them"
        )
    return model.assets[name]


def _givers(
    name: str,
    config: ModelConfig,
    sources: list[Source],
    owners: list[Modality] | None,
    lead: Source,
) -> list[Source]:
    """The models that may give a weight, best first."""
    part, which = name.split(".")[:2]
    if part == "targets":
        owners = _target_modalities(which, config)
        sources = [s for s in sources if s.model.config.targets.get(which) == config.targets[which]]
    elif part == "embeddings":
        owners = [Modality(which)]
    elif part == "shared":
        owners = [Modality.TEXT, Modality.CODE]
    return [lead] if owners is None else [s for s in sources if s.modality in owners]


def _target_modalities(target: str, config: ModelConfig) -> list[Modality]:
    """The modalities of the tasks that learn a target: it fits the vectors that their models
    make."""
    return [
        span.modality
        for task in config.tasks.values()
        if target in task.targets
        for span in task.spans
    ]


def _absence(name: str) -> str:
    """Why no model was asked for a weight."""
    part, which = name.split(".")[:2]
    if part == "targets":
        return f"no model given for its tasks has a target {which!r} with these settings"
    return "no model given for it"


def _take(name: str, fresh: Tensor, model: Model, source: Source) -> tuple[Tensor | None, Origin]:
    """The weight that `source` has for `name`, None when there is none that fits, and what is to be
    said of it."""
    found = source.counterpart(name)
    if found is None:
        return None, Origin(note=f"not in {source.label}")
    given, wordpieces = source.weights[found], _wordpieces(name, model, source)
    if wordpieces and given.shape[1:] == fresh.shape[1:]:
        return _match_rows(fresh, given, *wordpieces, source.label)
    if wordpieces or given.shape != fresh.shape:
        return None, Origin(
            note=f"{tuple(given.shape)} in {source.label}, {tuple(fresh.shape)} here"
        )
    return given, Origin(source.label)


def _wordpieces(
    name: str, model: Model, source: Source
) -> tuple[dict[str, int], dict[str, int]] | None:
    """Wordpiece → row, here and in the source, for a weight with a row per wordpiece; else None."""
    target = (
        model.config.targets.get(name.split(".")[1])
        if name.startswith("targets.") and name.count(".") == 2
        else None
    )
    if target is not None and target.tied_to and name.endswith(".bias"):
        here = there = target.tied_to
    elif match := WORDS.fullmatch(name):
        here, there = Modality(match[1] or "text"), source.modality
    else:
        return None
    own, given = _tokenizer_of(model, here), _tokenizer_of(source.model, there)
    return read_tokenizer(own).get_vocab(), read_tokenizer(given).get_vocab()


def _match_rows(
    fresh: Tensor, given: Tensor, own: Mapping[str, int], theirs: Mapping[str, int], label: str
) -> tuple[Tensor, Origin]:
    """The rows of those wordpieces that both have, copied into the fresh table."""
    known = [piece for piece in own if piece in theirs]
    table = fresh.clone()
    table[[own[piece] for piece in known]] = given[[theirs[piece] for piece in known]]
    note = (
        ""
        if len(known) == len(own)
        else f"{len(known):,} of {len(own):,} wordpieces, the others fresh"
    )
    return table, Origin(label, note, len(known) / len(own))


def _require_use(
    sources: list[Source], origins: Mapping[str, Origin], skills: Collection[str]
) -> None:
    """Raise ConfigError that names a model whose embedding and skill (names in `skills`) were of no
    use at all."""
    used = {
        origin.source
        for name, origin in origins.items()
        if name in skills or name.startswith(("embeddings.", "shared."))
    }
    for source in sources:
        if source.label not in used:
            reason = next(
                (o.note for o in origins.values() if source.label in o.note), "none in common"
            )
            remedy = (
                "give the recipe its width, heads and stream sizes; compare the two with skillweave"
                " inspect"
            )
            raise ConfigError(
                f"{source.label}: nothing of its embedding and skill fits the recipe's model"
                f" ({reason}); {remedy}"
            )

"""Weaving: a model of several skills is initialised from a pretrained model for each of them."""

from __future__ import annotations

import math
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
from skillweave.evaluation.agreement import SAME
from skillweave.inference.loading import load
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.model.parts import STREAM, differences
from skillweave.recipe import RecipeConfig
from skillweave.surgery.probe import (
    Comparison,
    compare_stream,
    differing_settings,
    require_same_vectors,
)
from skillweave.surgery.provenance import (
    Provenance,
    ProvenanceRow,
    group_experts,
    skill_owners,
    without_expert,
)
from skillweave.tasks.resolve import model_with_tasks, resolve

WORDS = re.compile(r"shared\.word\.weight|embeddings\.(\w+)\.content\.word\.weight")
DECODER_WORDS = "target_embedding.content.word.weight"
"""Tables with a row per token of the vocabulary. The bias of a masked-language target is another
one."""


class Woven(NamedTuple):
    """A woven model, the provenance of each of its weights, what it has besides weights, and for
    each model that it was woven from how much its vectors differ (see `compare_stream`)."""

    model: Model
    provenance: dict[str, Provenance]
    files: list[ProvenanceRow]
    comparisons: dict[str, Comparison]


@dataclass(frozen=True)
class Source:
    """A pretrained model that gives the weights of one modality. `label`: the user's name for it.
    `differs`: see `model.parts.differences`. `parts`: path of an encoder of the woven model → the
    one that is its counterpart here."""

    modality: Modality
    label: str
    model: Model
    differs: Mapping[str, list[str]]
    parts: Mapping[str, str]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """All its weights, by name."""
        return self.model.state_dict()

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Their names, by the name without experts."""
        return group_experts(self.weights)

    @cached_property
    def own(self) -> set[str]:
        """Names of the weights of its experts for the modality."""
        return {
            name
            for name, modalities in skill_owners(self.model).items()
            if self.modality in modalities
        }

    def counterpart(self, name: str) -> str | None:
        """The weight of this model that corresponds to a weight `name` of another model. Of several
        experts it is that of the modality, or the one with the same name."""
        if WORDS.fullmatch(name):
            names = [f"embeddings.{self.modality.value}.content.word.weight", "shared.word.weight"]
            return next((n for n in names if n in self.weights), None)
        for path, other in self.parts.items():
            if name.startswith(f"{path}."):
                name = other + name.removeprefix(path)
                break
        there = self.groups.get(without_expert(name), [])
        if len(there) == 1:
            return there[0]
        return next((n for n in there if n in self.own), name if name in there else None)


def weave(
    recipe: RecipeConfig, models: Mapping[str, str | Path], shared: str | None = None
) -> Woven:
    """The model of a recipe with weights of `models` (modality → run or model folder), wherever
    shapes agree.

    A stream's embedding, its own encoder and the experts of its skill come from the model of that
    modality: from its experts of the skill, or from its dense layers. A stream with an encoder of
    its own then computes the vectors of that model; this is checked. Weights that all skills share
    come from the model of the modality `shared`, by default the first one without a stream's
    encoder. A decoder comes from the first model that has one, a target from the first model, of a
    modality of its tasks, that has it with the same settings. Word embeddings are matched by token.
    All other weights are initialised as for training from scratch (seed `training.seed`). Raises
    ConfigError for a modality without a stream, a folder without a model, and a model that does not
    fit.
    """
    if not models:
        raise ConfigError("give at least one model to weave from, such as text=runs/texts")
    config = model_with_tasks(recipe)
    sources = [_open(config, modality, path) for modality, path in models.items()]
    lead = (
        choose({s.modality.value: s for s in sources}, shared, "model to share")
        if shared
        else next((s for s in sources if _shares(config, s)), None)
    )
    words = next(
        (source.model.config for source in sources if source.modality is Modality.TEXT), None
    )
    words = words or next(
        (s.model.config for s in sources if s.model.config.target_embedding), None
    )
    ready = resolve(recipe, _assets(config, sources), words)
    recipe, assets = ready.recipe, ready.assets
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        model = Model(recipe.model, assets)
    owners, state = skill_owners(model), model.state_dict()
    provenance: dict[str, Provenance] = {}
    for name, fresh in state.items():
        candidates = _candidates(name, model.config, sources, owners.get(name), lead)
        attempts = [
            *(_take(name, fresh, model, source) for source in candidates),
            (None, Provenance(note=_absence(name))),
        ]
        taken, provenance[name] = next((a for a in attempts if a[0] is not None), attempts[0])
        state[name] = fresh if taken is None else taken
    for source in sources:
        _require_whole(source, provenance, model.config)
    _require_use(sources, provenance, owners)
    model.load_state_dict(state)
    comparisons = {s.label: _compare(model.eval(), s) for s in sources}
    return Woven(model, provenance, _files(model, sources), comparisons)


def _shares(config: ModelConfig, source: Source) -> bool:
    """Whether what streams share may come from a model: its encoder is not that of a stream, unless
    it has both."""
    stream = config.streams.present()[source.modality]
    return not stream.encoder or source.model.config.projected(source.modality)


def _compare(model: Model, source: Source) -> Comparison:
    """The vectors of a stream against its model. Raises ConfigError where a stream with an encoder
    of its own has others."""
    modality = source.modality
    found = compare_stream(model, source.model, modality)
    here, there = (one.config.streams.present()[modality] for one in (model, source.model))
    if here.encoder:
        require_same_vectors(found, source.label, differing_settings(here, there), SAME)
    return found


def _files(model: Model, sources: list[Source]) -> list[ProvenanceRow]:
    """Where the tokenizers, the preprocessing and other files come from."""
    rows = []
    for name, content in sorted(model.assets.items()):
        given = [s.label for s in sources if s.model.assets.get(name) == content]
        tokens = name.endswith("tokenizer.json")
        note = f"{len(read_tokenizer(content).get_vocab()):,} tokens" if tokens else ""
        source = next(iter(given), "")
        rows.append(ProvenanceRow(name, source, note or f"{len(content):,} bytes", 0, 0, 0))
    for source in sources:
        modality = source.modality
        here, there = (one.config.streams.present()[modality] for one in (model, source.model))
        told = differing_settings(here, there)
        rows.append(
            ProvenanceRow(f"preprocessing of {modality.value}", source.label, told, 0, 0, 0)
        )
    return rows


def _open(config: ModelConfig, name: str, path: str | Path) -> Source:
    """The model at `path`. Raises ConfigError where it or the recipe has no stream for the
    modality."""
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
    if config.streams.present()[modality].encoder and not _same_class(config, model, modality):
        stream = config.streams.present()[modality]
        raise ConfigError(
            f"{label}: that model reads {modality.value} in another way than the recipe's stream"
            f" ({' + '.join(stream.embedding)}); {_remedy(modality, path)}"
        )
    parts = _counterparts(config, model, modality)
    told = differences(config, model.config, parts)
    return Source(modality, label, model.float().eval(), told, parts)


def _same_class(config: ModelConfig, model: Model, modality: Modality) -> bool:
    here, there = (one.streams.present()[modality] for one in (config, model.config))
    return type(here) is type(there)


def _remedy(modality: Modality, path: str | Path) -> str:
    return f"give the recipe model.streams.{modality.value}.preset: {path}"


def _counterparts(config: ModelConfig, model: Model, modality: Modality) -> dict[str, str]:
    """Path of an encoder of the woven model → that of the given model which runs on a modality."""
    own = f"{STREAM}{modality.value}"
    there = own if own in model.parts else "encoder"
    last = "encoder" if model.config.projected(modality) else there
    return {"encoder": last, own: there}


def _assets(config: ModelConfig, sources: list[Source]) -> dict[str, bytes]:
    """The tokenizers of models that share theirs among the same modalities, and sound clusters.

    A stream that shares its encoder and has the `path` of a tokenizer uses that file. Other
    tokenizers are trained on the recipe's texts.
    """
    assets: dict[str, bytes] = {}
    fitted = frozenset().union(*(target.assets for target in config.targets.values()))
    for source in sources:
        modality, theirs = source.modality, source.model.config
        stream = getattr(config.streams, modality.value)
        shared = config.sharers(modality) <= theirs.sharers(modality)
        # an encoder of its own knows only its own tokens, whatever the recipe names
        free = isinstance(stream, TextStream) and (stream.encoder or not stream.tokenizer.path)
        if free and shared:
            assets.setdefault(_tokenizer(config, modality), _tokenizer_of(source.model, modality))
        for name in fitted & source.model.assets.keys():
            assets.setdefault(name, source.model.assets[name])
    answers, name = config.target_embedding, tokenizer_asset(Modality.TEXT)
    if answers and not answers.tokenizer.path and not config.streams.text:
        writers = (source.model for source in sources if source.model.config.target_embedding)
        if writer := next(writers, None):
            assets[name] = _tokenizer_of(writer, Modality.TEXT)
    return assets


def _tokenizer(config: ModelConfig, modality: Modality) -> str:
    """Name of the asset with a modality's tokenizer: text's where `word` is shared."""
    return tokenizer_asset(Modality.TEXT if len(config.sharers(modality)) > 1 else modality)


def _tokenizer_of(model: Model, modality: Modality) -> bytes:
    """The tokenizer file. Raises ConfigError for a model that was saved without it."""
    name = _tokenizer(model.config, modality)
    if name not in model.assets:
        raise ConfigError(
            f"no {name} among the model's assets, so its {modality.value} tokens are unknown;"
            " save it with them"
        )
    return model.assets[name]


def _candidates(
    name: str,
    config: ModelConfig,
    sources: list[Source],
    owners: list[Modality] | None,
    lead: Source | None,
) -> list[Source]:
    """The models that a weight may come from, best first."""
    part, which = name.split(".")[:2]
    if part in ("decoder", "target_embedding"):
        first = [lead] if lead else []
        return [s for s in (*first, *sources) if s.model.decoder is not None]
    if part == "targets":
        owners = _target_modalities(which, config)
        sources = [s for s in sources if s.model.config.targets.get(which) == config.targets[which]]
    elif part in ("embeddings", "stream_encoders", "projectors"):
        owners = [Modality(which)]
    elif part == "shared":
        owners = [Modality.TEXT, Modality.CODE]
    elif owners:
        sources = [s for s in sources if _shares(config, s)]
    if owners is None:
        return [lead] if lead else []
    return [s for s in sources if s.modality in owners]


def _target_modalities(target: str, config: ModelConfig) -> list[Modality]:
    """The modalities of the tasks that use a target, since it fits the vectors of their models."""
    return [
        span.modality
        for task in config.tasks.values()
        if target in task.targets
        for span in task.spans
    ]


def _absence(name: str) -> str:
    """Why there is no model that a weight could come from."""
    part, which = name.split(".")[:2]
    if part == "targets":
        return f"no model given for its tasks has a target {which!r} with these settings"
    return "no model given for it"


def _take(
    name: str, fresh: Tensor, model: Model, source: Source
) -> tuple[Tensor | None, Provenance]:
    """The weight of `source` for `name`, None when none fits, and its provenance."""
    found = source.counterpart(name)
    if found is None:
        return None, Provenance(note=f"not in {source.label}")
    told = (told for path, told in source.differs.items() if name.startswith(f"{path}."))
    if differs := next(told, None):
        return None, Provenance(note=f"{', '.join(differs)}, in {source.label}")
    given, vocabularies = source.weights[found], _vocabularies(name, model, source)
    if vocabularies and vocabularies[0] == vocabularies[1] and given.shape == fresh.shape:
        return given, Provenance(source.label)  # also rows beyond the tokens
    if vocabularies and given.shape[1:] == fresh.shape[1:]:
        return _match_rows(fresh, given, *vocabularies, source.label)
    positions = name.endswith(".positions.position.table.weight")
    if positions and given.shape[1:] == fresh.shape[1:] and len(given) > len(fresh):
        note = f"the first {len(fresh):,} of {len(given):,} positions"
        return given[: len(fresh)], Provenance(source.label, note)
    if vocabularies or given.shape != fresh.shape:
        note = f"{tuple(given.shape)} in {source.label}, {tuple(fresh.shape)} here"
        return None, Provenance(note=note)
    return given, Provenance(source.label)


def _vocabularies(
    name: str, model: Model, source: Source
) -> tuple[dict[str, int], dict[str, int]] | None:
    """Token → row, here and in the source, for a weight with a row per token; else None."""
    part, which, rest = (*name.split(".", 2), "")[:3]
    target = model.config.targets.get(which) if part == "targets" else None
    predicted = getattr(target, "modality", None)
    if predicted and rest in ("bias", "output.weight", "output.bias"):
        here = there = predicted
    elif name == DECODER_WORDS:
        here = there = Modality.TEXT
    elif match := WORDS.fullmatch(name):
        here, there = Modality(match[1] or "text"), source.modality
    else:
        return None
    own, given = _tokenizer_of(model, here), _tokenizer_of(source.model, there)
    return read_tokenizer(own).get_vocab(), read_tokenizer(given).get_vocab()


def _match_rows(
    fresh: Tensor, given: Tensor, own: Mapping[str, int], theirs: Mapping[str, int], label: str
) -> tuple[Tensor, Provenance]:
    """The fresh table with the rows of the tokens that both vocabularies have."""
    known = [token for token in own if token in theirs]
    table = fresh.clone()
    table[[own[token] for token in known]] = given[[theirs[token] for token in known]]
    part = f"{len(known):,} of {len(own):,} tokens, the others fresh"
    note = "" if len(known) == len(own) else part
    return table, Provenance(label, note, len(known) / len(own))


def _require_whole(
    source: Source, provenance: Mapping[str, Provenance], config: ModelConfig
) -> None:
    """Raise ConfigError where a stream with an encoder of its own would not be that of its
    model."""
    modality = source.modality.value
    if not config.streams.present()[source.modality].encoder:
        return
    words = f"embeddings.{modality}.content.word.weight"
    name = "shared.word.weight" if words not in provenance else words
    if name in provenance and provenance[name].share < 1:
        path = source.label.partition("=")[2]
        raise ConfigError(
            f"{source.label}: its tokenizer is another one than that of the woven model (it has"
            f" {provenance[name].note.removesuffix(', the others fresh')}); let the stream have"
            f" tokens of its own, without `shared`, or {_remedy(source.modality, path)}"
        )
    prefixes = f"embeddings.{modality}.", f"{STREAM}{modality}."
    missing = {
        name: origin.note
        for name, origin in provenance.items()
        if name.startswith(prefixes) and not origin.source and not name.endswith(".mask")
    }
    if missing:
        name, note = next(iter(missing.items()))
        path = source.label.partition("=")[2]
        raise ConfigError(
            f"{source.label}: a part of another architecture than the recipe's stream"
            f" {modality!r}: {len(missing)} weights do not fit, such as {name} ({note});"
            f" {_remedy(source.modality, path)}"
        )


def _require_use(
    sources: list[Source], provenance: Mapping[str, Provenance], skills: Collection[str]
) -> None:
    """Raise ConfigError for a model of which neither the embedding nor the skill (names in
    `skills`) was used."""
    used = {
        origin.source
        for name, origin in provenance.items()
        if name in skills or name.startswith(("embeddings.", "shared."))
    }
    for source in sources:
        if source.label not in used:
            notes = (o.note for o in provenance.values() if source.label in o.note)
            reason = next(notes, "none in common")
            path = source.label.partition("=")[2]
            remedy = (
                "give the recipe its width, heads and stream sizes (skillweave inspect shows them),"
                f" or let the stream keep that model's encoder, of any width: projector: linear and"
                f" preset: {path} under model.streams.{source.modality.value}"
            )
            raise ConfigError(
                f"{source.label}: nothing of its embedding and skill fits the recipe's model"
                f" ({reason}); {remedy}"
            )


def comparison_lines(woven: Woven) -> list[str]:
    """For each model that was woven, whether its stream computes the same vectors."""
    lines = []
    for label, found in woven.comparisons.items():
        cut = f", compared at {found.cut}" if found.cut else ""
        if found.vectors == math.inf:
            lines.append(f"{label}: not compared, since the recipe prepares its inputs otherwise")
        elif found.vectors <= SAME:
            lines.append(f"{label}: equal vectors, within {found.vectors:.1e} of the largest{cut}")
        else:
            told = f"differ by {found.vectors:.1e} of the largest"
            lines.append(f"{label}: vectors {told}, since other models give a part of it{cut}")
    return lines

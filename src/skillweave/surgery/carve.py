"""A task's slice of a model as a dense model: the experts of each of its conditions merged once,
and nothing else kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from torch import Tensor, nn

from skillweave.batch import Batch, Condition, Modality
from skillweave.components.encoders.base import PATHS, Encoder
from skillweave.config import ConfigError, choose
from skillweave.config.encoder import DENSE, EncoderConfig, RouteConfig, SparseConfig
from skillweave.evaluation.agreement import SAME, differences, real_batch
from skillweave.inference.loading import RECIPE_FILE, open_run
from skillweave.layers.sparse import ConditionalFeedForward, ConditionalLinear, StaticRoute
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.surgery.export import export_tower
from skillweave.weights.files import FILE
from skillweave.weights.meta import meta_device

SAMPLES = 16
"""Real samples that the carved model is compared on."""
REPORT_FILE = "carve.json"
TOWERS_FOLDER = "towers"


def carve(model: Model, task: str) -> Model:
    """The dense model of one task, in evaluation mode: only the parameters it activates, experts
    merged.

    A condition's experts merge into one weight, exactly (Uni-Perceiver-MoE section 3.3). Where all
    spans of the task have the same weight, the carved layer is an ordinary one; otherwise it keeps
    one for each kind of spans (route `skill`), so that every span runs through dense layers,
    without gates. (Kinds of spans that mix the same few experts in different shares make more
    merged weights than there were experts.) Raises ConfigError for a task the model never had, and
    for experts that cannot merge: those of a route that looks at the data, and whole feed-forwards
    of which several are active.
    """
    return _carve(model, model.config.restricted(task), model.conditions(task))


def towers(model: Model, task: str) -> dict[str, Model]:
    """Each pass of a task as a dense model of its own, without targets, by the name of what it
    reads (`text`, `code_text`).

    A decoder is none: it answers nothing without what it looks at. Raises ConfigError as `carve`
    does.
    """
    described = choose(model.config.tasks, task, "task")
    layout, spans = described.layout(task), described.spans
    decoded = model.config.decoded(task)
    found: dict[str, Model] = {}
    for members in layout.passes:
        if layout.spans[members[0]] in decoded:
            continue
        own = [spans[s].model_copy(update={"encoder_pass": 0}) for s in members]
        name = "_".join(span.modality.value for span in own)
        name += f"_{len(found)}" if name in found else ""
        tasks = {task: ModelTask(spans=own, targets={})}
        alone = model.config.model_copy(update={"tasks": tasks}).restricted(task)
        found[name] = _carve(model, alone, [layout.condition(s) for s in members])
    return found


@torch.no_grad()
def _carve(model: Model, config: ModelConfig, conditions: Sequence[Condition]) -> Model:
    """The model of `config` with the weights that `model` resolves for the conditions."""
    parts = model.active_parts(dict.fromkeys(conditions))
    for path, own in parts.items():
        config = _with_sparse(config, path, _carved_routes(model, path, own))
    left_out = model.config.asset_names - config.asset_names
    with meta_device():
        carved = Model(
            config, {name: asset for name, asset in model.assets.items() if name not in left_out}
        )
    carved.drop_idle()
    merged = {
        name: x
        for path, own in parts.items()
        for name, x in _merged(model, carved, path, own).items()
    }
    given = model.state_dict()
    state = {name: merged[name] if name in merged else given[name] for name in carved.state_dict()}
    carved.load_state_dict({name: x.clone() for name, x in state.items()}, assign=True)
    return carved.eval()


def _config_of(config: ModelConfig, path: str) -> EncoderConfig:
    """The configuration of the encoder, the decoder or a stream's own encoder, by its path in the
    model."""
    if path == "decoder" and config.decoder is not None:
        return config.decoder
    return config.encoder_of(Modality(path.rpartition(".")[2])) if "." in path else config.encoder


def _with_sparse(config: ModelConfig, path: str, sparse: SparseConfig) -> ModelConfig:
    """The configuration with other routes in that part."""
    part = _config_of(config, path)
    if part.sparse == sparse:
        return config
    part = part.model_copy(update={"sparse": sparse})
    if "." not in path:
        return config.model_copy(update={path: part})
    modality = path.rpartition(".")[2]
    stream = config.streams.present()[Modality(modality)].model_copy(update={"encoder": part})
    return config.model_copy(
        update={"streams": config.streams.model_copy(update={modality: stream})}
    )


def _carved_routes(model: Model, path: str, conditions: list[Condition]) -> SparseConfig:
    """What is left of a part's routes: none, or a table from the kind of spans to their merged
    weight."""
    sparse = _config_of(model.config, path).sparse
    blocks = [*getattr(model.get_submodule(path), "blocks", [])][:: sparse.every]
    found = {
        place: route if route.route == "follow" else _table(blocks, place, route, conditions)
        for place, route in sparse.at(0).items()
        if route.route != "dense"
    }
    if all(route.route in ("dense", "follow") for route in found.values()):
        return SparseConfig()
    return SparseConfig(**found, every=sparse.every)


def _table(
    blocks: list[nn.Module], place: str, route: RouteConfig, conditions: list[Condition]
) -> RouteConfig:
    """The route of a place of the carved model. Raises ConfigError where its experts cannot
    merge."""
    banks = [block.get_submodule(PATHS[place]) for block in blocks]
    weights = {
        condition: tuple(_gates(bank, place, route, condition) for bank in banks)
        for condition in conditions
    }
    if len(set(weights.values())) == 1:
        return DENSE
    if route.route == "skill":
        return route
    names: dict[Any, str] = {}
    skills: dict[str, str] = {}
    # the modality alone before its special kinds
    for condition in sorted(conditions, key=lambda c: len(c.name)):
        modality = condition.modality.value
        own = condition.name.replace("/", "_") if modality in skills else modality
        expert = names.setdefault(weights[condition], own)
        if skills.setdefault(modality, expert) != expert:
            skills[condition.name] = expert
    return RouteConfig(route="skill", skills=skills)


def _gates(
    bank: nn.Module, place: str, route: RouteConfig, condition: Condition
) -> tuple[tuple[str, float], ...]:
    """The experts of a condition with their gates, in a form that can be compared."""
    remedy = (
        f"to ship less, load the slice with sw.load(path, tasks=[{condition.task!r}]), which keeps"
        " these experts"
    )
    static = getattr(bank, "route", None)
    if not isinstance(static, StaticRoute):
        raise ConfigError(
            f"{place} has route {route.route!r}, which looks at the data, so its experts cannot"
            f" merge; {remedy}, or train with route 'skill', 'modality', 'task' or 'attribute'"
        )
    gates = static.gates(condition)
    if isinstance(bank, ConditionalFeedForward) and len(gates) > 1:
        raise ConfigError(
            f"{place} mixes {len(gates)} whole feed-forwards after their nonlinearity, so they"
            f" cannot merge; {remedy}, or train with experts in feed_forward_in and"
            " feed_forward_out, or with `active: 1`"
        )
    return tuple((name, 1.0 if gate is None else gate.item()) for name, gate in gates.items())


def _merged(
    model: Model, carved: Model, part: str, conditions: Sequence[Condition]
) -> dict[str, Tensor]:
    """The merged weights of all banks of a part, by their names in the carved model."""
    found: dict[str, Tensor] = {}
    for path, bank in cast(Encoder, model.get_submodule(part)).banks():
        place = carved.get_submodule(f"{part}.{path}")
        for condition in conditions:
            name = f"{part}.{path}"
            if isinstance(place, ConditionalLinear | ConditionalFeedForward) and isinstance(
                place.route, StaticRoute
            ):
                (expert,) = place.route.gates(condition)
                name += f".experts.{expert}"
            found |= {f"{name}.{own}": x for own, x in _weights(bank, condition).items()}
    return found


def _weights(
    bank: ConditionalLinear | ConditionalFeedForward, condition: Condition
) -> Mapping[str, Tensor]:
    """The one dense layer of a condition."""
    if isinstance(bank, ConditionalLinear):
        dense = bank.resolve(condition)
        return {"weight": dense.weight} | ({} if dense.bias is None else {"bias": dense.bias})
    (expert,) = bank.resolve(condition) or {}
    return dict(bank.get_submodule(f"experts.{expert}").named_parameters())


def carve_run(
    run: str | Path, task: str, out: Path, stored: str = "float32", with_towers: bool = True
) -> dict[str, Any]:
    """Carve a task of a run into a folder that is itself a run folder, with each pass exported;
    what carve.json says of it.

    Parity with the whole model is proved on the task's own samples before anything is written, that
    of what is exported before the folder gets its name; it is there whole or not at all. Raises
    ConfigError as `carve` does, where there are no samples, and where the answers differ by more
    than rounding.
    """
    model, ready = open_run(run)
    recipe = ready.recipe
    carved = carve(model, task)
    batch, split = real_batch(ready, task, SAMPLES)
    apart = differences(model, carved, [batch])[task]
    require_same(apart, "the carved model", "the model's")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        carved.save_pretrained(partial, stored)
        (partial / RECIPE_FILE).write_text(_recipe_text(recipe, carved, task, out), "utf-8")
        about = {
            "task": task,
            "source": str(run),
            "samples": {"split": split, "number": len(batch)},
            "largest_relative_error": apart,
            "parameters": {"whole": model.count_parameters(), "carved": carved.count_parameters()},
            "weights": _stored(carved, partial, stored, batch),
            "decoder": carved.decoder is not None,
            "towers": _export(carved, batch, partial / TOWERS_FOLDER) if with_towers else [],
        }
        (partial / REPORT_FILE).write_text(
            json.dumps(about, ensure_ascii=False, indent=2) + "\n", "utf-8"
        )
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return about


def require_same(apart: float, what: str, whose: str) -> None:
    """Raise ConfigError where answers differ by more than rounding, or are not finite."""
    if not apart <= SAME:
        raise ConfigError(
            f"{what}: answers differ from {whose} by {apart:.1e} of the largest, more than rounding"
            f" ({SAME:.0e}); nothing was written"
        )


def carve_lines(about: dict[str, Any]) -> list[str]:
    """What carve.json says, in words."""
    samples, numbers, weights = about["samples"], about["parameters"], about["weights"]
    lines = [
        (
            f"compared on {samples['number']} {samples['split']} samples: answers differ by at most"
            f" {about['largest_relative_error']:.1e} of the largest logit"
        ),
        f"parameters: {numbers['carved']:,} of {numbers['whole']:,}",
        (
            f"weights in {weights['stored']}: {weights['bytes'] / 1e6:,.1f} MB; read back, answers"
            f" differ by at most {weights['largest_relative_error']:.1e}"
        ),
    ]
    for tower in about["towers"]:
        why = f", because {tower['why']}" if tower["why"] else ""
        lines.append(
            f"{tower['path']}: {tower['format']}{why}; differs by at most"
            f" {tower['largest_relative_error']:.1e}"
        )
    if about["decoder"]:
        lines.append(
            "the decoder is in the weights alone: it has no tower, because it answers nothing"
            " without the encoder"
        )
    return lines


def _recipe_text(recipe: RecipeConfig, carved: Model, task: str, out: Path) -> str:
    """The run's recipe for the one task, so that the folder can be measured, searched and asked."""
    own = {
        "name": f"{recipe.name}-{task}",
        "output": str(out),
        "model": carved.config,
        "tasks": {task: recipe.tasks[task]},
    }
    recipe = recipe.model_copy(update={**own, "only": [], "start_from": None, "tuning": None})
    return yaml.safe_dump(
        recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120
    )


def _stored(carved: Model, folder: Path, stored: str, batch: Batch) -> dict[str, Any]:
    """How the weights lie in the folder, how large they are, and what that does to the answers."""
    error = differences(carved, Model.from_pretrained(folder), [batch])[batch.layout.task]
    return {
        "stored": stored,
        "bytes": (folder / FILE).stat().st_size,
        "largest_relative_error": error,
    }


def _export(carved: Model, batch: Batch, folder: Path) -> list[dict[str, Any]]:
    """Write each pass for programs without skillweave; every one is read back and held against the
    carved model."""
    task, found = batch.layout.task, []
    expected = carved.hidden(Batch(batch.layout, batch.inputs, batch.lengths))
    for p, (name, tower) in enumerate(towers(carved, task).items()):
        spans = batch.layout.passes[p]
        own = Batch(
            batch.layout.only(p),
            tuple(batch.inputs[s] for s in spans),
            batch.lengths[:, list(spans)],
        )
        exported = export_tower(tower, own, expected[p].detach(), folder, name)
        require_same(
            exported["largest_relative_error"],
            f"the {exported['format']} of tower {name}",
            "the carved model's",
        )
        found.append(exported)
    return found

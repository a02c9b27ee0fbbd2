"""Carving: the slice of a model that a task needs, as a dense model. The experts of each condition
are merged once, and nothing else is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from skillweave.batch import Batch, Condition
from skillweave.components.encoders.base import SITE_PATHS, Bank
from skillweave.config import ConfigError, choose
from skillweave.config.encoder import DENSE, RouteConfig, SparseConfig
from skillweave.config.routes import DENSE_ROUTE, ROUTES
from skillweave.evaluation.agreement import SAME, differences, real_batch
from skillweave.inference.loading import open_run
from skillweave.layers.sparse import ConditionalFeedForward, ConditionalLinear, Gates
from skillweave.layers.sparse.routes.static import SKILL_ROUTE
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.model import Model
from skillweave.model.parts import part_configs, with_sparse
from skillweave.recipe import RECIPE_FILE, RecipeConfig
from skillweave.storage import replacing, write_json
from skillweave.surgery.export import export_encoder
from skillweave.weights.files import FILE
from skillweave.weights.meta import meta_device

SAMPLES = 16
"""Real samples on which the carved model is compared."""
REPORT_FILE = "carve.json"
ENCODERS_FOLDER = "encoders"


def carve(model: Model, task: str, keep_experts: bool = False) -> Model:
    """The dense model of one task, in evaluation mode: only the parameters that the task activates,
    experts merged.

    The experts of a condition merge into one weight, exactly (Uni-Perceiver-MoE section 3.3). Where
    all spans of the task have the same weight, the carved layer is an ordinary one. Otherwise it
    keeps a weight for each kind of span (route `skill`), so that every span runs through dense
    layers without gates. (Kinds of spans that mix the same few experts in different shares give
    more merged weights than there were experts.)

    Experts cannot merge where a route looks at the data, and where several whole feed-forwards are
    active. With `keep_experts` such experts stay as they are, with their gates. Without it they
    raise ConfigError, as does a task that the model does not have.
    """
    config = model.config.restricted(task)
    return _carve(model, config, model.conditions(task), keep_experts)


def task_encoders(model: Model, task: str, targets: bool = False) -> dict[str, Model]:
    """Each pass of a task as a dense model of its own, by what it reads (`text`, `code_text`);
    without targets, or with those of the task.

    A decoder is left out: it gives nothing without the encoder's output. Raises ConfigError as
    `carve` does.
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
        tasks = {task: ModelTask(spans=own, targets=described.targets if targets else {})}
        alone = model.config.model_copy(update={"tasks": tasks}).restricted(task)
        found[name] = _carve(model, alone, [layout.condition(s) for s in members])
    return found


@torch.no_grad()
def _carve(
    model: Model,
    config: ModelConfig,
    conditions: Sequence[Condition],
    keep_experts: bool = False,
) -> Model:
    """The model of `config` with the weights that `model` resolves for the conditions."""
    parts = model.active_parts(dict.fromkeys(conditions))
    for path, own in parts.items():
        config = with_sparse(config, path, _carved_sites(model, path, own, keep_experts))
    left_out = model.config.asset_names - config.asset_names
    assets = {name: asset for name, asset in model.assets.items() if name not in left_out}
    with meta_device():
        carved = Model(config, assets)
    given = model.state_dict()
    gates = {name: given[name] for name in carved.state_dict() if ".route." in name}
    carved.load_state_dict(gates, strict=False, assign=True)  # they decide what is idle
    carved.drop_idle()
    for path, own in parts.items():
        given |= _merged(model, carved, path, own)
    state = {name: given[name].clone() for name in carved.state_dict()}
    carved.load_state_dict(state, assign=True)
    return carved.eval()


def _carved_sites(
    model: Model, path: str, conditions: list[Condition], keep_experts: bool
) -> SparseConfig:
    """The experts that are left in a part: none, or at each site a weight for each kind of span, or
    the site's experts as they are."""
    blocks = list(model.parts[path].blocks)
    if not blocks:
        return SparseConfig()
    sparse = part_configs(model.config)[path].sparse
    found: dict[str, RouteConfig] = {}
    for site, route in sparse.at(0).items():
        if route.follows:
            found[site] = route
        elif route.sparse:
            banks = [block.get_submodule(SITE_PATHS[site]) for block in blocks[:: sparse.every]]
            where = f"{path}.{site}"
            found[site] = _carved_route(where, route, banks, conditions, keep_experts)
    if not any(route.sparse and not route.follows for route in found.values()):
        return SparseConfig()
    return SparseConfig(**found, every=sparse.every)


def _carved_route(
    where: str,
    route: RouteConfig,
    banks: Sequence[Any],
    conditions: list[Condition],
    keep_experts: bool,
) -> RouteConfig:
    """The route of a site of the carved model. Raises ConfigError where its experts cannot merge
    and are not to be kept."""
    if fault := _cannot_merge(where, banks[0], conditions):
        if keep_experts:
            return route
        raise ConfigError(fault)
    gates = {
        condition: tuple(_comparable(bank.route.gates(condition)) for bank in banks)
        for condition in conditions
    }
    if len(set(gates.values())) == 1:
        return DENSE
    one_hot = all(len(experts) == 1 for many in gates.values() for experts in many)
    if one_hot and not banks[0].route.learned:
        return route
    names: dict[Any, str] = {}
    skills: dict[str, str] = {}
    # the modality alone before its special kinds
    for condition in sorted(conditions, key=lambda c: len(c.name)):
        modality = condition.modality.value
        own = condition.name.replace("/", "_") if modality in skills else modality
        expert = names.setdefault(gates[condition], own)
        if skills.setdefault(modality, expert) != expert:
            skills[condition.name] = expert
    return RouteConfig(route=SKILL_ROUTE, skills=skills)


def _comparable(gates: Gates) -> tuple[tuple[str, float], ...]:
    return tuple((name, 1.0 if gate is None else gate.item()) for name, gate in gates.items())


def _cannot_merge(where: str, bank: Bank, conditions: list[Condition]) -> str:
    """Why the experts of a site cannot merge, and what to do; empty where they can."""
    remedy = (
        "to ship less, load the slice with"
        f" sw.load(path, tasks=[{conditions[0].task!r}]), which keeps these experts, carve with"
        " keep_experts=True (--keep-experts --no-export), or train with"
    )
    name = bank.route.name
    if bank.route.looks_at_data:
        merging = [n for n, r in ROUTES.items() if n != DENSE_ROUTE and not r.looks_at_data]
        return (
            f"{where} has route {name!r}, which looks at the data, so its experts cannot merge;"
            f" {remedy} one of the routes {', '.join(merging)}"
        )
    active = max(len(bank.route.gates(condition) or ()) for condition in conditions)
    if isinstance(bank, ConditionalFeedForward) and active > 1:
        return (
            f"{where} mixes {active} whole feed-forwards after their nonlinearity, so they cannot"
            f" merge; {remedy} experts in feed_forward_in and feed_forward_out, or with `active: 1`"
        )
    return ""


def _merged(
    model: Model, carved: Model, path: str, conditions: Sequence[Condition]
) -> dict[str, Tensor]:
    """The merged weights of a part by their names in the carved model. Banks that keep their route
    have none."""
    found: dict[str, Tensor] = {}
    for name, bank in model.parts[path].banks():
        place = carved.get_submodule(f"{path}.{name}")
        own = place.route if isinstance(place, Bank) else None
        if own is not None and own.name == bank.route.name:
            continue
        for condition in conditions:
            experts = [] if own is None else [f"experts.{e}" for e in own.gates(condition) or ()]
            prefix = ".".join([path, name, *experts])
            found |= {f"{prefix}.{key}": x for key, x in _weights(bank, condition).items()}
    return found


def _weights(bank: Bank, condition: Condition) -> Mapping[str, Tensor]:
    """The only dense layer of a condition."""
    if isinstance(bank, ConditionalLinear):
        dense = bank.resolve(condition)
        return {"weight": dense.weight} | ({} if dense.bias is None else {"bias": dense.bias})
    (expert,) = bank.resolve(condition) or {}
    return dict(bank.get_submodule(f"experts.{expert}").named_parameters())


def carve_run(
    run: str | Path,
    task: str,
    out: Path,
    stored: str = "float32",
    export: bool = True,
    keep_experts: bool = False,
) -> dict[str, Any]:
    """Carve a task of a run into a new run folder and export the encoder of each pass; returns the
    content of carve.json.

    The carved model is compared with the whole one on samples of the task before anything is
    written, and every export before the folder gets its name, so the folder is complete or absent.
    `stored`: see `save_pretrained`. `keep_experts`: see `carve`. Raises ConfigError as `carve`
    does, where there are no samples, and where outputs differ by more than rounding.
    """
    model, ready = open_run(run)
    recipe = ready.recipe
    carved = carve(model, task, keep_experts)
    batch, split = real_batch(ready, task, SAMPLES)
    apart = differences(model, carved, [batch])[task]
    require_same(apart, "the carved model", "the model's")
    with replacing(out) as partial:
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
            "encoders": _export(carved, batch, partial / ENCODERS_FOLDER) if export else [],
        }
        write_json(partial / REPORT_FILE, about)
    return about


def require_same(apart: float, what: str, whose: str) -> None:
    """Raise ConfigError where outputs differ by more than rounding, or are not finite."""
    if not apart <= SAME:
        raise ConfigError(
            f"{what}: answers differ from {whose} by {apart:.1e} of the largest, more than rounding"
            f" ({SAME:.0e}); nothing was written"
        )


def carve_lines(about: dict[str, Any]) -> list[str]:
    """The content of carve.json in sentences."""
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
    for encoder in about["encoders"]:
        why = f", because {encoder['why']}" if encoder["why"] else ""
        lines.append(
            f"{encoder['path']}: {encoder['format']}{why}; differs by at most"
            f" {encoder['largest_relative_error']:.1e}"
        )
    if about["decoder"]:
        lines.append(
            "the decoder is not exported, because it needs the encoder's output; it is in the"
            " weights"
        )
    return lines


def _recipe_text(recipe: RecipeConfig, carved: Model, task: str, out: Path) -> str:
    """The run's recipe with only this task, so that the folder can be evaluated, searched and
    asked."""
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
    """How the weights are stored, their size, and how much that changes the outputs."""
    error = differences(carved, Model.from_pretrained(folder), [batch])[batch.layout.task]
    return {
        "stored": stored,
        "bytes": (folder / FILE).stat().st_size,
        "largest_relative_error": error,
    }


def _export(carved: Model, batch: Batch, folder: Path) -> list[dict[str, Any]]:
    """Export the encoder of each pass for programs without skillweave. Each is read back and
    compared with the carved model."""
    task, found = batch.layout.task, []
    expected = carved.hidden(Batch(batch.layout, batch.inputs, batch.lengths))
    for p, (name, encoder) in enumerate(task_encoders(carved, task).items()):
        spans = batch.layout.passes[p]
        inputs, lengths = tuple(batch.inputs[s] for s in spans), batch.lengths[:, list(spans)]
        own = Batch(batch.layout.only(p), inputs, lengths)
        exported = export_encoder(encoder, own, expected[p].detach(), folder, name)
        what = f"the {exported['format']} of encoder {name}"
        require_same(exported["largest_relative_error"], what, "the carved model's")
        found.append(exported)
    return found

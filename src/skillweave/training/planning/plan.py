"""`skillweave plan`: what a recipe needs on so many GPUs, before anything is rented or trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skillweave.config import ConfigError, choose
from skillweave.config.encoder import TransformerConfig
from skillweave.layers.block import Block
from skillweave.layers.sparse import ConditionalFeedForward, ConditionalLinear
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.training.planning import layouts
from skillweave.training.planning.hardware import Hardware
from skillweave.training.planning.largest import LargestBatches
from skillweave.training.planning.layouts import Estimate
from skillweave.training.planning.trace import StepTrace, deeper, trace_step
from skillweave.training.run import recompute_of
from skillweave.weights.meta import meta_device

FEW_LAYERS = 2, 4
"""Layers of the models that are traced in place of one with many equal layers."""

DEFAULT_BATCH = 32
"""Samples of a micro-batch whose size is `auto`."""
GPU_COUNTS = tuple(2**n for n in range(11))
"""Numbers of GPUs for which `scaling_of` looks for the best layout."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TaskPlan:
    """A task of a plan: its `activated` parameters, the trace of a micro-batch, the samples of a
    step, and the layouts, best first: those that fit by time, then the others by memory."""

    name: str
    activated: int
    trace: StepTrace
    samples: int
    model: layouts.Model
    estimates: Sequence[Estimate]


@dataclass(frozen=True)
class Plan:
    """What a recipe needs. `parameters`: all numbers of the model; `trained`: of these, those that
    are trained. `state_bytes`: of the optimizer for each of them. `tasks`: by name."""

    name: str
    hardware: Hardware
    gpus: int
    precision: str
    parameters: int
    trained: int
    state_bytes: int
    tasks: Mapping[str, TaskPlan]

    def to_json(self) -> dict[str, Any]:
        """All figures; bytes and seconds."""
        return {
            "recipe": self.name,
            "gpus": self.gpus,
            "gpu": {
                "name": self.hardware.name,
                "bytes": self.hardware.memory,
                "source": self.hardware.source,
                "assumed_share_of_peak": self.hardware.efficiency,
            },
            "precision": self.precision,
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "bytes": {
                "weights": 4 * self.parameters,
                "gradients": 4 * self.trained,
                "optimizer": self.state_bytes * self.trained,
            },
            "tasks": {
                name: {
                    "activated_parameters": task.activated,
                    "batch_size": task.trace.samples,
                    "tokens": task.trace.tokens,
                    "samples_per_step": task.samples,
                    "flops": task.trace.flops,
                    "bytes": {
                        "kept_activations": task.trace.kept,
                        "most_activations": task.trace.activations,
                        "one_process": task.trace.memory(self.state_bytes * self.trained),
                    },
                    "layouts": [one.to_json() for one in task.estimates],
                }
                for name, task in self.tasks.items()
            },
        }


def make_plan(
    recipe: RecipeConfig,
    hardware: Hardware,
    gpus: int,
    tasks: Sequence[str] = (),
    progress: Progress | None = None,
) -> Plan:
    """Plan a recipe for `gpus` GPUs. Its data are not read: every sample is as long as its stream
    allows.

    A step trains `batch_size` × `gradient_accumulation_steps` × `gpus` samples, as on so many
    replicas; all layouts train as many. Raises ConfigError for a recipe that cannot be resolved.
    """
    for name in tasks:
        choose(recipe.tasks, name, "task")
    chosen = list(tasks or recipe.tasks)
    largest = LargestBatches(recipe)
    config = largest.recipe.model
    model = _model(config, largest)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = {}
    for i, name in enumerate(chosen):
        if progress:
            progress("tasks", i, len(chosen))
        trace = trace_task(recipe, largest, model, name)
        samples = trace.samples * recipe.training.gradient_accumulation_steps * gpus
        described = describe(model, trace, trained, recipe)
        estimates = ranked(described, hardware, gpus, recipe.training.precision, samples)
        found[name] = TaskPlan(
            name, model.count_parameters(name), trace, samples, described, estimates
        )
    if progress:
        progress("tasks", len(chosen), len(chosen))
    optimizer = recipe.training.optimizer
    return Plan(
        recipe.name,
        hardware,
        gpus,
        recipe.training.precision,
        model.count_parameters(),
        trained,
        optimizer.state_bytes,
        found,
    )


def _model(config: ModelConfig, largest: LargestBatches) -> Model:
    with meta_device():
        return Model(config, dict(largest.recipe.assets))


def trace_task(recipe: RecipeConfig, largest: LargestBatches, model: Model, name: str) -> StepTrace:
    """A micro-batch of a task with samples of the greatest length. Of a model with many equal
    layers, two with few are traced."""
    task = recipe.tasks[name]
    batch = largest.batch(name, task.batch_size or DEFAULT_BATCH)

    def traced(one: Model) -> StepTrace:
        one.recompute_activations(recompute_of(recipe.training))
        return trace_step(
            one,
            batch,
            recipe.training.optimizer,
            precision=recipe.training.precision,
            fused_attention=True,
            chunk_size=task.chunk_size,
        )

    encoder = model.config.encoder
    first, second = FEW_LAYERS
    if not _alike(encoder) or encoder.layers <= 2 * second:
        return traced(model)
    few = [
        model.config.changed(encoder=encoder.model_copy(update={"layers": layers}))
        for layers in (first, second)
    ]
    share = (encoder.layers - first) / (second - first)
    return deeper(*(traced(_model(config, largest)) for config in few), share)


def _alike(encoder: Any) -> bool:
    """Whether all layers of an encoder are the same."""
    if not isinstance(encoder, TransformerConfig):
        return False
    routes = [encoder.sparse.at(layer) for layer in range(encoder.layers)]
    differ = encoder.global_layers or encoder.distinct_layers
    return not differ and all(one == routes[0] for one in routes)


def describe(model: Model, trace: StepTrace, trained: int, recipe: RecipeConfig) -> layouts.Model:
    """What layouts ask of a model."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    inside = [sum(p.numel() for p in block.parameters()) for block in blocks]
    experts, expert_layers, in_layer = 0, 0, 0
    for block in blocks:
        own = [
            module
            for module in block.modules()
            if isinstance(module, ConditionalLinear | ConditionalFeedForward)
            and module.route.looks_at_data
        ]
        expert_layers += bool(own)
        whole = [one for one in own if isinstance(one, ConditionalFeedForward)]
        in_layer = math.gcd(in_layer, *(len(one.route.experts) for one in whole))
        experts += sum(p.numel() for one in own for p in one.get_submodule("experts").parameters())
    encoder = model.config.encoder
    largest_weight = max(p.numel() for p in model.parameters())
    return layouts.Model(
        trace=trace,
        weights=model.count_parameters(),
        trained=trained,
        blocks=sum(inside),
        experts=experts,
        unit=max([*inside, largest_weight]),
        layers=len(blocks) or encoder.layers,
        divisor=_divisor(encoder),
        width=model.config.width,
        expert_layers=expert_layers,
        experts_in_layer=in_layer,
        state_bytes=recipe.training.optimizer.state_bytes,
        compute_bytes=4 if recipe.training.precision == "float32" else 2,
    )


def _divisor(encoder: Any) -> int:
    """See `layouts.Model`."""
    if not isinstance(encoder, TransformerConfig):
        return 1
    heads = math.gcd(encoder.heads, encoder.key_value_heads or encoder.heads)
    return math.gcd(heads, encoder.feed_forward)


def ranked(
    model: layouts.Model, hardware: Hardware, gpus: int, precision: str, samples: int
) -> list[Estimate]:
    """The layouts of so many GPUs, best first. Raises ConfigError if none can divide the
    samples."""
    found = [
        one
        for layout in layouts.possible(model, gpus, hardware)
        if (one := layouts.estimate(model, layout, hardware, precision, samples))
    ]
    if not found:
        raise ConfigError(
            f"{gpus} GPUs cannot divide {samples} samples into micro-batches of"
            f" {model.trace.samples}; change the number of GPUs or tasks.*.batch_size"
        )
    return sorted(found, key=lambda one: (not one.fits, one.step if one.fits else one.memory))


def scaling_of(plan: Plan, counts: Sequence[int] = GPU_COUNTS) -> dict[str, Any]:
    """Task → for each number of GPUs the best layout that fits, with as many samples in a step as
    the plan has; numbers of GPUs without one are left out."""
    found = {}
    for name, task in plan.tasks.items():
        points = []
        for gpus in counts:
            try:
                best = ranked(task.model, plan.hardware, gpus, plan.precision, task.samples)[0]
            except ConfigError:
                continue
            if best.fits:
                points.append({"gpus": gpus, **best.to_json()})
        found[name] = points
    return found

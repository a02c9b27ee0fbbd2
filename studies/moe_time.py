"""What the systems of Table 3 cost: training and inference on their own batches, interleaved with
the dense model.

A turn goes over the mixture once: a batch of each task, as many as its weight says. In training
that is forward, backward, clipping and AdamW; in inference the candidates are encoded and the
experts that may be merged are merged beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cells  # noqa: F401  # makes benchmarks importable
import torch
from sparse import Turn, compare

from skillweave.analysis.sampled_batches import sample_batches
from skillweave.model.model import Model
from skillweave.recipe import read_recipe
from skillweave.tasks.predictions import encode_candidates
from skillweave.tasks.resolve import ResolvedRecipe, resolve
from skillweave.training.allocator import keep_freed_memory
from skillweave.training.optimizer import make_optimizer


def measure(recipes: Mapping[str, Path], rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """System → `training` and `inference`: the median ratio of its time to the first system's; that
    one's own are 1."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as in training
    built = {system: build(file) for system, file in recipes.items()}
    ratios = {
        "training": compare(
            "training", {system: training(*b) for system, b in built.items()}, rounds
        ),
        "inference": compare(
            "inference", {system: inference(*b) for system, b in built.items()}, rounds
        ),
    }
    return {
        system: {kind: found.get(system, 1.0) for kind, found in ratios.items()}
        for system in recipes
    }


def build(file: Path) -> tuple[Model, ResolvedRecipe]:
    """A new model of a recipe, and the resolved recipe."""
    ready = resolve(read_recipe(file))
    torch.manual_seed(ready.recipe.training.seed)
    return Model(ready.model, ready.assets), ready


def training(model: Model, ready: ResolvedRecipe) -> Turn:
    """Steps as in training."""
    recipe = ready.recipe
    weights = {name: round(task.weight) for name, task in recipe.tasks.items()}
    sampled = {
        name: list(batches)
        for name, batches in sample_batches(ready, max(weights.values())).items()
    }
    batches = [batch for name, found in sampled.items() for batch in found[: weights[name]]]
    optimizer = make_optimizer(model, recipe.training.optimizer)
    generator = torch.Generator().manual_seed(0)  # of the gates' noise

    def turn() -> None:
        model.train()
        for batch in batches:
            loss = model(batch, generator).loss
            assert loss is not None  # sampled batches have labels
            loss.backward()
            torch.nn.utils.clip_grad_norm_(
                model.parameters(), recipe.training.optimizer.max_grad_norm or torch.inf
            )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return turn


def inference(model: Model, ready: ResolvedRecipe) -> Turn:
    """Answers for test samples, with weights that do not change."""
    model.eval()
    work = []
    for name, task in ready.recipe.tasks.items():
        dataset = ready.dataset(name, "test")
        candidates = encode_candidates(model, dataset.candidate_batches())
        batches = list(dataset.batches(task.batch_size, limit=task.batch_size))
        work += [
            (batch, model.resolve(name), candidates)
            for batch in batches
            for _ in range(round(task.weight))
        ]

    def turn() -> None:
        model.eval()
        for batch, resolved, candidates in work:
            model(batch, resolved=resolved, candidates=candidates)

    return torch.inference_mode()(turn)

"""Masked pictures and clips: the pixels or visual tokens of hidden patches (pretraining)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import IGNORE, Example, Features, Modality, Span
from skillweave.components.targets import TargetConfig
from skillweave.data.masking import mask_patches
from skillweave.data.processors.pixels import to_bytes
from skillweave.metrics import Columns, ratio
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.tasks.cases import CASES, Case, Item
from skillweave.tasks.masked_prediction import MaskedPrediction
from skillweave.tasks.predictions import Predictions, on_device, stack
from skillweave.tasks.task import (
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    register,
)

TITLES = ("the picture", "what the model saw", "what it painted")


@dataclass(kw_only=True)
class ReconstructedPatches(Predictions):
    """Hidden patches of pictures. `errors`: squared errors of their pixels, summed, [N] float32;
    `of_mean`: those of the mean of the visible patches. `views`: of the first samples the picture,
    what the model saw of it and what it painted, [H, W, 3] uint8 each."""

    errors: NDArray[np.float32]
    of_mean: NDArray[np.float32]
    views: list[list[NDArray[np.uint8]]]


@dataclass(frozen=True, kw_only=True)
class MaskedImage(Task):
    """A picture or clip with some of its patches hidden, and its pixels (SimMIM); the encoder may
    see the others alone (MAE)."""

    answers: ClassVar[bool] = False
    asked_fields: ClassVar[frozenset[str]] = frozenset()
    metrics: ClassVar[tuple[str, ...]] = ("pixel_error",)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        features, _ = masked_patches(self.spans[0].modality, row, context, rng)
        return Example((features,), {"pixels": features.data}, row["key"])

    def bound_targets(
        self, name: str, target: TargetConfig, model: ModelConfig
    ) -> dict[str, TargetConfig]:
        """A masked autoencoder predicts patches of the task's modality."""
        if "stream" in type(target).model_fields and "stream" not in target.model_fields_set:
            target = target.model_copy(update={"stream": self.spans[0].modality})
        return {name: target}

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> ReconstructedPatches:
        """How far the pixels of hidden patches are from what the model paints."""
        target, seen = cast(Any, model.targets[task.target_name]), Predictions()
        stream = model.config.visual(self.spans[0].modality)
        errors, of_mean, views = [], [], []
        for batch in on_device(model, batches, seen):
            painted_NPC = model(batch).logits[task.target_name].float()
            pixels = batch.labels["pixels"]
            masked_NP = cast(Tensor, batch.masked[0])[:, stream.num_prefix_tokens :]
            if len(views) < CASES:
                few = slice(CASES - len(views))
                shown = painted_NPC[few], pixels[few], masked_NP[few]
                blank = target.paint(torch.zeros_like(shown[0]), *shown[1:])
                pictures = [shown[1], blank, target.paint(*shown)]
                # of a clip its middle frame
                pictures = [x if x.ndim == 4 else x[:, :, x.shape[2] // 2] for x in pictures]
                as_bytes = (to_bytes(x, stream.mean, stream.std) for x in pictures)
                views += [list(view) for view in zip(*as_bytes, strict=True)]
            patches_NPC, hidden_NP1 = target.patches(pixels), masked_NP.unsqueeze(-1)
            visible_NPC = patches_NPC * ~hidden_NP1
            mean_N1C = visible_NPC.sum(1, keepdim=True) / (~hidden_NP1).sum(1, keepdim=True)
            for found, guess_NPC in ((errors, painted_NPC), (of_mean, mean_N1C)):
                squares_NPC = (guess_NPC - patches_NPC).square() * hidden_NP1
                found.append(squares_NPC.sum((1, 2)).cpu())
        return ReconstructedPatches(
            errors=stack(errors), of_mean=stack(of_mean), views=views, **vars(seen)
        )

    def columns(self, found: Predictions) -> Columns:
        """Error of the pixels, as a share of that of the mean visible patch."""
        found = cast(ReconstructedPatches, found)
        return {"pixel_error": (ratio, [found.errors, found.of_mean])}

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """The mean visible patch, by the metric's definition."""
        return {"pixel_error": 1.0}

    def cases(self, found: Predictions, data: MeasuredData) -> list[Case]:
        """The first pictures, what the model saw and what it painted."""
        cases = []
        for view in cast(ReconstructedPatches, found).views:
            items = [Item("pixels", pixels) for pixels in view]
            cases.append(Case(items[0], views=list(zip(items, TITLES, strict=True))))
        return cases


def masked_patches(
    modality: Modality, row: Row, context: TaskContext, rng: np.random.Generator
) -> tuple[Features, Tensor]:
    """The picture or clip, and which of its patches [P] are hidden: the same places in all
    frames."""
    stream, masking = context.model.visual(modality), context.masking
    features = context.features(row, modality, rng)
    share = masking.share or context.target.mask_ratio
    masked = mask_patches(stream.grid[1], share, masking.block, rng).repeat(stream.grid[0])
    seen = features.length
    if stream.leaves_out_masked:
        seen -= int(masked.sum())
    return Features(features.data, seen, F.pad(masked, (stream.num_prefix_tokens, 0))), masked


def masked_image_tokens(row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
    """A picture with some of its patches hidden, and the visual token of each (BEiT)."""
    features, masked = masked_patches(Modality.IMAGE, row, context, rng)
    tokens = context.asset(features.data)
    specials = torch.full((context.model.visual(Modality.IMAGE).num_prefix_tokens,), IGNORE)
    hidden = torch.where(masked, tokens, torch.full_like(tokens, IGNORE))
    labels = {"units": torch.cat([specials, hidden])}
    return Example((features,), {}, row["key"], token_labels=labels)


register(
    MaskedImage(
        name="masked_image",
        summary=(
            "pretraining: the pixels of hidden patches (SimMIM; with `target: masked_autoencoder`"
            " MAE)"
        ),
        spans=(Span(Modality.IMAGE),),
        targets=("masked_pixels",),
        fields=("image",),
        pretraining=True,
    ),
    MaskedPrediction(
        name="masked_image_tokens",
        summary="pretraining: the visual tokens of hidden patches (BEiT)",
        spans=(Span(Modality.IMAGE),),
        targets=("masked_image_token",),
        fields=("image",),
        corrupt=masked_image_tokens,
        pretraining=True,
    ),
    MaskedImage(
        name="masked_video",
        summary="pretraining: the pixels of hidden tubelets (VideoMAE)",
        spans=(Span(Modality.VIDEO),),
        targets=("masked_autoencoder",),
        fields=("video",),
        pretraining=True,
    ),
)

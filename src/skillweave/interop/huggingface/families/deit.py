"""DeiT (arXiv 2012.12877): ViT with a second token, which learns from a teacher."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.engine import rule
from skillweave.interop.huggingface.families.bert import CLASSIFIER
from skillweave.interop.huggingface.families.vit import (
    LINEAR,
    VIT,
    embedding,
    layers,
    masked_pixels,
)
from skillweave.interop.huggingface.family import Head

FIXED = {"hidden": False}
DEIT = replace(
    VIT,
    model_type="deit",
    rules=(*embedding("deit."), *layers("deit.")),
    heads={
        "DeiTModel": Head(
            {"pooled": {}},
            (rule("targets.pooled.pooler", "deit.pooler.dense"),),
            unused=("classifier.", "cls_classifier.", "distillation_classifier."),
            optional="add_pooling_layer",
        ),
        "DeiTForMaskedImageModeling": masked_pixels("deit.pooler."),
        "DeiTForImageClassification": Head({"classification": FIXED}, (LINEAR,), CLASSIFIER),
        "DeiTForImageClassificationWithTeacher": Head(
            {"classification": {**FIXED, "distilled": True}},
            (
                rule("targets.classification.classifier", "cls_classifier"),
                rule("targets.classification.distilled", "distillation_classifier"),
            ),
            CLASSIFIER,
        ),
    },
    base="deit.",
    constants={**VIT.constants, "streams.image.distilled": True},
)

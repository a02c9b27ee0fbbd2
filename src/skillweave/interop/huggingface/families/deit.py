"""DeiT (arXiv 2012.12877): ViT with a second token, which learns from a teacher."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.families.vit import (
    VIT,
    masked_image_model,
)
from skillweave.interop.huggingface.family import Head

WITH_TEACHER = Head.classification("cls_classifier", options={"distilled": True})
DEIT = replace(
    VIT,
    model_type="deit",
    prefix="deit.",
    heads={
        "DeiTModel": Head.pooled(
            "deit.pooler.dense", "classifier.", "cls_classifier.", "distillation_classifier."
        ),
        "DeiTForMaskedImageModeling": masked_image_model("deit.pooler."),
        "DeiTForImageClassification": Head.classification(),
        "DeiTForImageClassificationWithTeacher": replace(
            WITH_TEACHER,
            rules={
                **WITH_TEACHER.rules,
                "targets.classification.distilled": "distillation_classifier",
            },
        ),
    },
    constants={**VIT.constants, "streams.image.distilled": True},
)
DEIT.register()

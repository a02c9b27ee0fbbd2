"""Tasks over images."""

from skillweave.batch import Modality, Role, Span
from skillweave.tasks.build import classify, pair
from skillweave.tasks.build_pretraining import masked_image_tokens, masked_patches
from skillweave.tasks.task import Task

SPANS = (Span(Modality.TEXT), Span(Modality.IMAGE, Role.TARGET, encoder_pass=1))

TASKS = (
    Task(
        name="image_classification",
        summary="which category a picture shows (ViT)",
        spans=(Span(Modality.IMAGE),),
        target="classification",
        metric="accuracy",
        fields=("image", "label"),
        build=classify(Modality.IMAGE),
    ),
    Task(
        name="text_to_image",
        summary="the picture that a text describes (SkillNet section 4.1)",
        spans=SPANS,
        target="contrastive",
        metric="recall",
        fields=("text", "image"),
        build=pair(Modality.IMAGE),
    ),
    Task(
        name="image_text_contrastive",
        summary="pretraining: matching pictures and texts (SkillNet section 4.2, CLIP)",
        spans=SPANS,
        target="contrastive",
        metric="recall",
        fields=("text", "image"),
        build=pair(Modality.IMAGE),
        pretraining=True,
    ),
    Task(
        name="masked_image",
        summary=(
            "pretraining: the pixels of hidden patches (SimMIM; with `target: masked_autoencoder`"
            " MAE)"
        ),
        spans=(Span(Modality.IMAGE),),
        target="masked_pixels",
        metric="pixel_error",
        fields=("image",),
        build=masked_patches(Modality.IMAGE),
        pretraining=True,
    ),
    Task(
        name="masked_image_tokens",
        summary="pretraining: the visual tokens of hidden patches (BEiT)",
        spans=(Span(Modality.IMAGE),),
        target="masked_image_token",
        metric="perplexity",
        fields=("image",),
        build=masked_image_tokens,
        pretraining=True,
    ),
)

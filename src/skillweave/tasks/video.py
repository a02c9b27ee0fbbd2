"""Tasks over video."""

from skillweave.batch import Modality, Role, Span
from skillweave.tasks.build import classify, pair, pair_frames
from skillweave.tasks.build_pretraining import masked_patches
from skillweave.tasks.task import Task

FRAMES = 3
"""Frames of a clip that the image stream sees."""
SPANS = (Span(Modality.TEXT), Span(Modality.VIDEO, Role.TARGET, encoder_pass=1))

TASKS = (
    Task(
        name="video_classification",
        summary="which category a clip shows (VideoMAE)",
        spans=(Span(Modality.VIDEO),),
        target="classification",
        metric="accuracy",
        fields=("video", "label"),
        build=classify(Modality.VIDEO),
    ),
    Task(
        name="text_to_video",
        summary="the clip that a text describes (SkillNet section 4.1)",
        spans=SPANS,
        target="contrastive",
        metric="recall",
        fields=("text", "video"),
        build=pair(Modality.VIDEO),
    ),
    Task(
        name="text_to_frames",
        summary=(
            "the clip that a text describes, its frames seen as pictures: for models without a"
            " video stream"
        ),
        spans=(
            Span(Modality.TEXT),
            *(Span(Modality.IMAGE, Role.TARGET, encoder_pass=1 + i) for i in range(FRAMES)),
        ),
        target="contrastive",
        metric="recall",
        fields=("text", "video"),
        build=pair_frames(FRAMES),
    ),
    Task(
        name="video_text_contrastive",
        summary="pretraining: matching clips and texts (SkillNet section 4.2)",
        spans=SPANS,
        target="contrastive",
        metric="recall",
        fields=("text", "video"),
        build=pair(Modality.VIDEO),
        pretraining=True,
    ),
    Task(
        name="masked_video",
        summary="pretraining: the pixels of hidden tubelets (VideoMAE)",
        spans=(Span(Modality.VIDEO),),
        target="masked_autoencoder",
        metric="pixel_error",
        fields=("video",),
        build=masked_patches(Modality.VIDEO),
        pretraining=True,
    ),
)

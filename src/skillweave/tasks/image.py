"""Tasks over images."""

from skillweave.batch import Modality, Role, Span
from skillweave.tasks.build import pair
from skillweave.tasks.task import Task

SPANS = (Span(Modality.TEXT), Span(Modality.IMAGE, Role.TARGET, encoder_pass=1))

TASKS = (
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
)

"""Tasks over text."""

from skillweave.batch import Modality, Span
from skillweave.tasks.build import classify, masked_text
from skillweave.tasks.task import Task

TASKS = (
    Task(
        name="text_classification",
        summary="which category a text belongs to (SkillNet section 4.1)",
        spans=(Span(Modality.TEXT),),
        target="classification",
        metric="accuracy",
        fields=("text", "label"),
        build=classify(Modality.TEXT),
    ),
    Task(
        name="masked_text",
        summary="pretraining: the masked words of a text (SkillNet section 4.2, BERT)",
        spans=(Span(Modality.TEXT),),
        target="mlm",
        metric="perplexity",
        fields=("text",),
        build=masked_text,
        pretraining=True,
    ),
)

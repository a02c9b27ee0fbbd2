"""Tasks over code."""

from skillweave.batch import Modality, Role, Span
from skillweave.tasks.build import masked_code, pair
from skillweave.tasks.build_answers import answer_in_text
from skillweave.tasks.task import ANSWER, Task

TASKS = (
    Task(
        name="text_to_code",
        summary="the function that a text describes (SkillNet section 4.1)",
        spans=(Span(Modality.TEXT), Span(Modality.CODE, Role.TARGET, encoder_pass=1)),
        target="contrastive",
        metric="recall",
        fields=("text", "code"),
        build=pair(Modality.CODE),
    ),
    Task(
        name="code_to_text",
        summary="what a function does, in words, by a decoder",
        spans=(Span(Modality.CODE), ANSWER),
        target="lm",
        metric="chrf",
        fields=("code", "text"),
        answer="text",
        build=answer_in_text(Modality.CODE),
    ),
    Task(
        name="masked_code",
        summary="pretraining: masked words of [code; SEP; text] (SkillNet section 4.2, CodeBERT)",
        spans=(Span(Modality.CODE), Span(Modality.TEXT)),
        target="mlm",
        metric="perplexity",
        fields=("text", "code"),
        build=masked_code,
        pretraining=True,
    ),
)

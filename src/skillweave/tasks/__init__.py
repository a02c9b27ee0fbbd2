"""Task families: one file each, with its entries in the catalogue `TASKS`."""

from skillweave.tasks import (  # noqa: F401
    classification,
    distillation,
    generation,
    language_modelling,
    likelihood,
    masked_images,
    masked_prediction,
    matching,
    multi_label,
    multiple_choice,
    naming,
    prompting,
    question_answering,
    regression,
    retrieval,
    token_labels,
    transcription,
    visual_questions,
)
from skillweave.tasks.task import TASKS, ResolvedTask, Task, TaskContext

__all__ = ["TASKS", "ResolvedTask", "Task", "TaskContext"]

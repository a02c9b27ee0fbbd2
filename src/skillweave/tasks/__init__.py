"""The task catalogue: one file per modality lists its tasks as data."""

from skillweave.tasks import code, image, sound, text, unified, video
from skillweave.tasks.task import Task

TASKS: dict[str, Task] = {
    task.name: task
    for module in (text, sound, image, video, code, unified)
    for task in module.TASKS
}
"""By name; a recipe's task says which entry it is with `kind`, or by its own name."""

__all__ = ["TASKS", "Task"]

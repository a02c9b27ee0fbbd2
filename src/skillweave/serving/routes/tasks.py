"""Our own endpoints: what each task is, and its answers for rows as in training data."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from skillweave.data.processors import BadInput
from skillweave.serving.content import Body, read_row
from skillweave.serving.errors import RequestError
from skillweave.serving.models import ServedModel
from skillweave.serving.routes.shared import Called, ServedModels

router = APIRouter(tags=["tasks"])

Value = str | list[str]


@router.get("/tasks")
def list_tasks(models: ServedModels) -> dict[str, Any]:
    """Every task of every model: what it reads and gives, its parameters, and those that it
    activates."""
    return {"tasks": [about(model, name) for model in models for name in model.model.config.tasks]}


def about(model: ServedModel, name: str) -> dict[str, Any]:
    """What is told of a task."""
    task = model.tasks.get(name)
    return {
        "model": model.name,
        "task": name,
        "summary": task.entry.summary if task else "encodes inputs",
        "reads": list(fields_of(model, name)),
        "answers": bool(task and task.entry.answers and not task.compares_samples),
        "writes": bool(task and task.target.writes_text),
        "encodes": model.embeds.get(name, []),
        "classes": task.classes if task else [],
        "activated_parameters": model.parameters(name),
        "total_parameters": model.parameters(None),
    }


def fields_of(model: ServedModel, name: str) -> tuple[str, ...]:
    """The fields of a row that a task reads."""
    task = model.tasks.get(name)
    if task is None:
        return tuple(model.embeds.get(name, ()))
    entry = task.entry
    optional = tuple(field for field in entry.optional if field not in entry.asked_fields)
    if task.target.writes_text and not entry.answers:
        return (*(entry.given or ("text",)), "prompt")
    return (*entry.given, *optional)


class TaskRequest(Body):
    """Rows: fields of the task with their values, media as data URIs. A text alone is the first
    field. `settings`: of `DecodingConfig`, for tasks that write."""

    model: str | None = None
    inputs: Annotated[list[str | dict[str, Value]], Field(min_length=1)]
    settings: dict[str, bool | int | float | str | list[str]] | None = None


@router.post("/tasks/{name}")
async def run_task(
    name: str, body: TaskRequest, models: ServedModels, call: Called
) -> dict[str, Any]:
    """One answer for each row, `{"error": reason}` for a row that cannot be used: what the task
    answers; a vector for a task that compares; a text for one that writes."""
    model, _ = models.find(body.model, name)
    if name not in model.model.config.tasks:
        model.task(name)  # says which there are
    call.begin(model, len(body.inputs))
    task, fields = model.tasks.get(name), fields_of(model, name)
    answers: list[dict[str, Any]] = [{}] * len(body.inputs)
    rows: dict[int, dict[str, Any]] = {}
    for number, given in enumerate(body.inputs):
        try:
            rows[number] = read_row(given, fields, model.settings)
        except BadInput as error:
            answers[number] = {"error": str(error)}
    values = list(rows.values())
    if task and task.target.writes_text and (body.settings or not task.entry.answers):
        writing = model.writing(name, body.settings or {})
        found = [best for best, *_ in await model.write(writing, values, call.usage)]
    elif body.settings:
        raise RequestError(f"settings: task {name!r} writes no text")
    elif task and task.entry.answers and not task.compares_samples:
        found = await model.answer(name, values, call.usage)
    else:
        found = await _vectors(model, name, values, call)
    for number, answer in zip(rows, found, strict=True):
        answers[number] = answer
    call.end()
    return {"model": model.name, "task": name, "answers": answers}


async def _vectors(
    model: ServedModel, name: str, rows: list[dict[str, Any]], call: Called
) -> list[dict[str, Any]]:
    """A vector for each field of each row."""
    cells = [(i, field, value) for i, row in enumerate(rows) for field, value in row.items()]
    if listed := [field for _, field, value in cells if isinstance(value, list)]:
        raise RequestError(f"{listed[0]}: a vector is that of one text; give each a row")
    inputs = [("text" if field == "second" else field, value) for _, field, value in cells]
    if not inputs:
        raise RequestError("an input has no field")
    vectors = await model.encode(inputs, name, call.usage)
    answers: list[dict[str, Any]] = [{"vectors": {}} for _ in rows]
    for (i, field, _), vector in zip(cells, vectors, strict=True):
        answers[i]["vectors"][field] = vector.tolist()
    return answers

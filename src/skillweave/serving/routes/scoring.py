"""Scores and classes, with bodies as vLLM's."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter
from pydantic import Field

from skillweave.serving.content import Body, Part
from skillweave.serving.errors import RequestError
from skillweave.serving.models import ServedModel, Usage
from skillweave.serving.routes.cohere import scored
from skillweave.serving.routes.shared import Called, ServedModels, read_all
from skillweave.tasks.task import ResolvedTask

router = APIRouter(tags=["scores"])

OneOrMore = str | Part | Annotated[list[str | Part], Field(min_length=1)]


class ScoreRequest(Body):
    """Two sides: one input and one or more, or as many on either side."""

    model: str | None = None
    task: str | None = None
    text_1: OneOrMore
    text_2: OneOrMore


@router.post("/score")
async def score(body: ScoreRequest, models: ServedModels, call: Called) -> dict[str, Any]:
    """How alike pairs of inputs are, texts or of other modalities: the cosine of their vectors, or
    what a task over pairs of texts says."""
    model, task = models.find(body.model, body.task)
    left, right = (one if isinstance(one, list) else [one] for one in (body.text_1, body.text_2))
    if len(left) != len(right) and len(left) != 1:
        raise RequestError(
            f"text_1 has {len(left)} inputs and text_2 {len(right)}; give one, or as many"
        )
    call.begin(model, len(left) + len(right))
    sides = [read_all(side, model.settings) for side in (left, right)]
    scores = await scored(model, task, *sides, call.usage)
    tokens = call.end().tokens
    return {
        "id": uuid.uuid4().hex,
        "object": "list",
        "model": body.model or model.name,
        "data": [{"index": i, "object": "score", "score": x} for i, x in enumerate(scores)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


class ClassifyRequest(Body):
    """Inputs, and labels of one's own, if the model's are not wanted."""

    model: str | None = None
    task: str | None = None
    input: OneOrMore
    labels: Annotated[list[str], Field(min_length=2, max_length=1000)] | None = None


@router.post("/classify")
async def classify(body: ClassifyRequest, models: ServedModels, call: Called) -> dict[str, Any]:
    """The class of each input: among the model's own, or among `labels`, by the similarity of its
    vector to theirs."""
    model, task = models.find(body.model, body.task)
    given = body.input if isinstance(body.input, list) else [body.input]
    call.begin(model, len(given) + len(body.labels or ()))
    values = read_all(given, model.settings)
    if body.labels:
        shares = await named(model, task, values, body.labels, call.usage)
        found = [dict(zip(body.labels, row, strict=True)) for row in shares.tolist()]
    else:
        found = await _by_task(model, task, values, call.usage)
    data = []
    for number, probabilities in enumerate(found):
        best = max(probabilities, key=lambda name: probabilities[name])
        data.append(
            {
                "index": number,
                "label": best,
                "probs": [*probabilities.values()],
                "labels": [*probabilities],
                "num_classes": len(probabilities),
            }
        )
    tokens = call.end().tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"id": uuid.uuid4().hex, "object": "list", "data": data, "usage": usage}


async def named(
    model: ServedModel,
    task: str | None,
    values: list[tuple[str, Any]],
    labels: list[str],
    usage: Usage,
) -> np.ndarray:
    """The probabilities [N, C] of labels of one's own. Raises RequestError for equal labels."""
    if len({*labels}) < len(labels):
        raise RequestError("labels: two are equal")
    task = model.embedding_task({"text", *(modality for modality, _ in values)}, task)
    scale = model.scale(task)
    vectors = await model.encode([*values, *(("text", one) for one in labels)], task, usage)
    logits = scale * vectors[: len(values)] @ vectors[len(values) :].T
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def gives_classes(task: ResolvedTask) -> bool:
    """Whether a task sorts inputs of one modality into classes."""
    return task.entry.answers and bool(task.classes) and len(task.entry.given) == 1


async def _by_task(
    model: ServedModel, task: str | None, values: list[tuple[str, Any]], usage: Usage
) -> list[dict[str, float]]:
    modalities = {modality for modality, _ in values}
    name = model.first(
        lambda one: gives_classes(one) and {*one.entry.given} == modalities,
        f"classify {' and '.join(sorted(modalities))} without labels of your own",
        task,
    )
    answers = await model.answer(name, [{modality: x} for modality, x in values], usage)
    for number, answer in enumerate(answers):
        if "error" in answer:
            raise RequestError(f"input {number}: {answer['error']}")
    return [answer["probabilities"] for answer in answers]

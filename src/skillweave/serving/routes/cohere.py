"""Endpoints of Cohere's clients: vectors of texts and media, and the order of documents."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import Field

from skillweave.data.processors import BadInput
from skillweave.inference.predictor import Vectors, shortened
from skillweave.serving.content import Body, Part, read_file
from skillweave.serving.errors import RequestError
from skillweave.serving.routes.shared import Called, ServedModels, read_all

router = APIRouter(tags=["cohere"])

ENCODINGS: dict[str, Callable[[Vectors], list[Any]]] = {
    "float": lambda x: x.tolist(),
    "int8": lambda x: _bytes(x).tolist(),
    "uint8": lambda x: (_bytes(x) + 128).tolist(),
    "binary": lambda x: (_bits(x).astype(np.int16) - 128).tolist(),
    "ubinary": lambda x: _bits(x).tolist(),
    "base64": lambda x: [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in x],
}
"""Form of vectors → how unit vectors [N, D] are told in it: 8 bits stand for [-1, 1], and a bit for
a number above 0."""


def _bytes(vectors: Vectors) -> np.ndarray:
    return np.rint(np.clip(vectors, -1, 1) * 127).astype(np.int16)


def _bits(vectors: Vectors) -> np.ndarray:
    return np.packbits(vectors > 0, axis=1)


class EmbedInput(Body):
    """An input: its one part."""

    content: Annotated[list[Part], Field(min_length=1)]


class EmbedRequest(Body):
    """What `client.embed` sends: `texts`, `images` or `inputs`. `task` is our own."""

    model: str | None = None
    task: str | None = None
    texts: list[str] | None = None
    images: list[str] | None = None
    """Data URIs: pictures, and also recordings (audio/...) and clips (video/...)."""
    inputs: list[EmbedInput] | None = None
    input_type: str | None = None
    """`search_query`, `search_document` and others: the name of the model's prompt, if it has
    one."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    output_dimension: Annotated[int, Field(ge=1)] | None = None
    embedding_types: list[Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]] = [
        "float"
    ]
    truncate: Literal["NONE", "START", "END"] = "END"
    priority: int | None = None


@router.post("/v2/embed")
async def embed(body: EmbedRequest, models: ServedModels, call: Called) -> dict[str, Any]:
    """Unit vectors of texts, pictures, recordings and clips."""
    model, task = models.find(body.model, body.task)
    sources = {"texts": body.texts, "images": body.images, "inputs": body.inputs}
    given = [name for name, values in sources.items() if values]
    if len(given) != 1:
        raise RequestError("give one of texts, images and inputs, with something in it")
    if body.truncate != "END" or body.max_tokens:
        raise RequestError(
            "truncate and max_tokens: long texts are cut at their end to the model's length;"
            " leave both out"
        )
    call.begin(model, len(sources[given[0]] or ()))
    values: list[tuple[str, Any]] = [("text", text) for text in body.texts or ()]
    for number, uri in enumerate(body.images or ()):
        try:
            values.append(read_file(uri, model.settings))
        except BadInput as error:
            raise RequestError(f"input {number}: {error}") from None
    for number, one in enumerate(body.inputs or ()):
        if len(one.content) != 1:
            raise RequestError(
                f"input {number}: a vector is that of one text or file; give each an input"
            )
    values += read_all([one.content[0] for one in body.inputs or ()], model.settings)
    vectors = await model.encode(values, task, call.usage, prompt_of(body, model, task, values))
    if body.output_dimension is not None:
        vectors = shortened(vectors, body.output_dimension)
    if {"binary", "ubinary"} & {*body.embedding_types} and vectors.shape[1] % 8:
        raise RequestError(f"binary: {vectors.shape[1]} dimensions are not a multiple of 8")
    usage = call.end()
    return {
        "id": uuid.uuid4().hex,
        "response_type": "embeddings_by_type",
        "embeddings": {name: ENCODINGS[name](vectors) for name in body.embedding_types},
        "texts": body.texts or [],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": usage.tokens}},
    }


def prompt_of(
    body: EmbedRequest, model: Any, task: str | None, values: Sequence[tuple[str, Any]]
) -> str | None:
    """The model's prompt that `input_type` names; None where it has none of this name."""
    name = model.embedding_task({modality for modality, _ in values}, task)
    targets = model.model.config.tasks[name].targets
    target = next((model.model.config.targets[one] for one in targets), None)
    return body.input_type if body.input_type in getattr(target, "prompts", {}) else None


class Document(Body):
    """A document with its text under a name."""

    text: str


class RerankRequest(Body):
    """What `client.rerank` sends. `task` is our own."""

    model: str | None = None
    task: str | None = None
    query: str
    documents: Annotated[list[str | Document | Part], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    priority: int | None = None


@router.post("/v2/rerank")
@router.post("/v1/rerank", include_in_schema=False)
@router.post("/rerank", include_in_schema=False)
async def rerank(body: RerankRequest, models: ServedModels, call: Called) -> dict[str, Any]:
    """Documents of any modality by how well they fit a text, the best first. A score is the cosine
    of two vectors, or what a task over pairs of texts says."""
    model, task = models.find(body.model, body.task)
    call.begin(model, len(body.documents))
    documents = [one.text if isinstance(one, Document) else one for one in body.documents]
    values = read_all(documents, model.settings)
    scores = await scored(model, task, [("text", body.query)], values, call.usage)
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n]
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": scores[i]} for i in order]
    if body.return_documents:
        for result in results:
            document = documents[result["index"]]
            if isinstance(document, str):
                result["document"] = {"text": document}
    call.end()
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    return {"id": uuid.uuid4().hex, "results": results, "meta": meta}


async def scored(
    model: Any,
    task: str | None,
    queries: Sequence[tuple[str, Any]],
    values: Sequence[tuple[str, Any]],
    usage: Any,
) -> list[float]:
    """How well values fit queries: one query for all, or one for each."""
    pairs = list(
        zip(queries if len(queries) > 1 else [*queries] * len(values), values, strict=True)
    )
    if task in model.tasks and "score" in model.tasks[task].entry.fields:
        rows = [{"text": query[1], "second": value[1]} for query, value in pairs]
        if any(one[0] != "text" for pair in pairs for one in pair):
            raise RequestError(f"task {task!r} compares texts")
        answers = await model.answer(task, rows, usage)
        for number, answer in enumerate(answers):
            if "error" in answer:
                raise RequestError(f"input {number}: {answer['error']}")
        return [answer["score"] for answer in answers]
    vectors = await model.encode([*queries, *values], task, usage)
    left, right = vectors[: len(queries)], vectors[len(queries) :]
    return (left * right).sum(-1).tolist()

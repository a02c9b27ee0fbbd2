"""Tools for assistants over the Model Context Protocol: what the models can do, at /mcp.

Every request is answered on its own (streamable HTTP without sessions), behind the same protection
as all endpoints. Files are data URIs, as there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Annotated, Any, TypeVar

from mcp.server.fastmcp import FastMCP
from mcp.server.fastmcp.exceptions import ToolError
from pydantic import Field

from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.retrieval.filters import parse_filters
from skillweave.serving.collections import Collections
from skillweave.serving.content import read_file
from skillweave.serving.errors import RequestError
from skillweave.serving.logs import log
from skillweave.serving.models import Models, ServedModel, Usage
from skillweave.serving.routes.openai import is_transcription
from skillweave.serving.routes.scoring import named
from skillweave.serving.routes.search import address
from skillweave.tasks.task import ResolvedTask

PATH = "/mcp"
Answer = TypeVar("Answer")
Uri = Annotated[str, Field(description="a data URI, such as data:image/png;base64,...")]
Labels = Annotated[list[str], Field(min_length=2, max_length=256)]
Count = Annotated[int, Field(ge=1, le=100)]
Tokens = Annotated[int, Field(ge=1, le=1024)]


def open_tools(models: Models, collections: Collections) -> FastMCP:
    """A server with the tools that some models have a use for."""
    server = FastMCP(
        "skillweave",
        instructions="Small models that search, sort, transcribe, write and answer questions.",
        host=models.settings.host,  # on this machine alone, only its own names are answered
        streamable_http_path=PATH,
        stateless_http=True,
        json_response=True,
        max_request_body_size=models.settings.max_body_bytes,
        log_level="ERROR",
    )
    if collections:
        _add_search(server, collections)
    compares = [(m, found) for m in models for found in m.embeds.values() if "text" in found]
    if compares:
        _add_classes(server, compares[0][0])
    if found := models.first_task(is_transcription):
        _add_transcripts(server, *found)
    if found := models.first_task(lambda task: {*task.entry.given} == {"image", "question"}):
        _add_questions(server, *found)
    if found := models.first_task(lambda task: task.target.writes_text and "text" in reads(task)):
        _add_texts(server, *found)
    return server


def reads(task: ResolvedTask) -> tuple[str, ...]:
    """The fields that a task that writes reads; a language model reads the text that goes on."""
    return task.entry.given or ("text",)


def told(function: Callable[..., Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    """A tool whose faults are told as those of endpoints: what was wrong with the input in words,
    and nothing of other faults but that they are in the log."""

    @wraps(function)
    async def call(*args: Any, **options: Any) -> Answer:
        try:
            return await function(*args, **options)
        except (RequestError, BadInput, ConfigError) as error:
            raise ToolError(str(error)) from None
        except Exception as error:
            log("error", logging.ERROR, exc_info=error, tool=getattr(function, "__name__", ""))
            raise ToolError("an error of the service; see its log") from None

    return call


def _add_search(server: FastMCP, collections: Collections) -> None:
    @server.tool()
    @told
    async def search(
        query: str, within: str | None = None, k: Count = 5, where: tuple[str, ...] = ()
    ) -> list[dict[str, Any]]:
        """Find the items that are most similar to a text, best first, each with its cosine.

        within: image, video, sound, code or text. where: conditions such as year>=2020."""
        found = collections.find(within) if within else next(iter(collections))
        hits = await found.search(("text", query), k, Usage(), parse_filters(where))
        return [{**hit.to_json(), "file": address(found, hit.entry.key)} for hit in hits]


def _add_classes(server: FastMCP, model: ServedModel) -> None:
    @server.tool()
    @told
    async def classify(
        labels: Labels, text: str | None = None, file: Uri | None = None
    ) -> dict[str, float]:
        """How well each of some labels fits a text, or a picture, recording or clip: label to
        probability."""
        if (text is None) == (file is None):
            raise RequestError("give either a text or a file")
        given = ("text", text) if file is None else read_file(file, model.settings)
        shares = await named(model, None, [given], labels, Usage())
        return dict(zip(labels, shares[0].tolist(), strict=True))


def _add_transcripts(server: FastMCP, model: ServedModel, task: ResolvedTask) -> None:
    @server.tool()
    @told
    async def transcribe(recording: Uri) -> str:
        """What is said in a recording."""
        row = {"sound": read_file(recording, model.settings)[1]}
        if task.target.writes_text:
            ((answer, *_),) = await model.write(model.writing(task.name, {}), [row], Usage())
        else:
            (answer,) = await model.answer(task.name, [row], Usage())
        return _text(answer)


def _add_questions(server: FastMCP, model: ServedModel, task: ResolvedTask) -> None:
    @server.tool()
    @told
    async def ask(picture: Uri, question: str) -> str:
        """The answer to a question about a picture."""
        row = {"image": read_file(picture, model.settings)[1], "question": question}
        (answer,) = await model.answer(task.name, [row], Usage())
        return _text(answer)


def _add_texts(server: FastMCP, model: ServedModel, task: ResolvedTask) -> None:
    @server.tool()
    @told
    async def write(text: str, max_tokens: Tokens = 64) -> str:
        """What a model writes to a text, or how it goes on."""
        writing = model.writing(task.name, {"max_new_tokens": max_tokens})
        ((answer, *_),) = await model.write(writing, [{"text": text}], Usage())
        return _text(answer)


def _text(answer: dict[str, Any]) -> str:
    """The text of an answer of any task. Raises RequestError for an input that cannot be used."""
    if "error" in answer:
        raise RequestError(answer["error"])
    return next(str(answer[name]) for name in ("transcript", "answer", "text") if name in answer)

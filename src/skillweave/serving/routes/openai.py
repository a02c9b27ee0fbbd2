"""Endpoints of OpenAI's clients: models, embeddings, transcriptions, completions, chat."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import Field

from skillweave.batch import Modality
from skillweave.data.processors import BadInput
from skillweave.inference.predictor import Vectors, shortened
from skillweave.inference.subtitles import subtitles
from skillweave.serving.content import Body, Part, TextPart
from skillweave.serving.errors import RequestError
from skillweave.serving.models import ServedModel
from skillweave.serving.operations import Writing
from skillweave.serving.routes.shared import Call, Called, ServedModels, read_all
from skillweave.tasks.task import ResolvedTask

router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models")
def list_models(models: ServedModels) -> dict[str, Any]:
    """The models, and each of their tasks as `MODEL:TASK`."""
    names = [
        (name, model)
        for model in models
        for name in (model.name, *(f"{model.name}:{task}" for task in model.model.config.tasks))
    ]
    return {"object": "list", "data": [_about(name, model) for name, model in names]}


@router.get("/models/{name:path}")
def one_model(name: str, models: ServedModels) -> dict[str, Any]:
    """One model, or a task of it."""
    model, _ = models.find(name)
    return _about(name, model)


def _about(name: str, model: ServedModel) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": model.created, "owned_by": "skillweave"}


class EmbeddingRequest(Body):
    """What `client.embeddings.create` sends. `task`, and inputs with a type, are our own."""

    input: str | Annotated[list[str | Part], Field(min_length=1)]
    model: str | None = None
    task: str | None = None
    prompt: str | None = None
    """Name of the text that stands before each text, one of the model's `prompts`."""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


@router.post("/embeddings")
async def embeddings(body: EmbeddingRequest, models: ServedModels, call: Called) -> dict[str, Any]:
    """Unit vectors of texts, or of inputs of any modality that one task encodes.

    `dimensions`: the first of them, with unit length again.
    """
    model, task = models.find(body.model, body.task)
    given = [body.input] if isinstance(body.input, str) else body.input
    call.begin(model, len(given))
    inputs = read_all(given, model.settings)
    vectors = await model.encode(inputs, task, call.usage, body.prompt)
    if body.dimensions is not None:
        vectors = shortened(vectors, body.dimensions)
    data = [
        {"object": "embedding", "index": i, "embedding": _written(vector, body.encoding_format)}
        for i, vector in enumerate(vectors)
    ]
    tokens = call.end().tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body.model or model.name, "usage": usage}


def _written(vector: Vectors, encoding: str) -> Any:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()


@router.post("/audio/transcriptions")
async def transcriptions(
    models: ServedModels,
    call: Called,
    file: Annotated[UploadFile, File()],
    model: Annotated[str | None, Form()] = None,
    language: Annotated[str | None, Form(pattern="^[a-z]{2,3}$")] = None,
    prompt: Annotated[str | None, Form()] = None,
    response_format: Annotated[
        Literal["json", "text", "srt", "verbose_json", "vtt"], Form()
    ] = "json",
    temperature: Annotated[float, Form(ge=0, le=1)] = 0.0,
) -> Response:
    """What is said in a recording. `srt`, `vtt`, `language`, `prompt` and `temperature` are for
    models that write, such as a Whisper."""
    served, asked = models.find(model)
    task = served.first(is_transcription, "transcribe", asked)
    call.begin(served, 1)
    row = {"sound": await file.read()}
    options = {"language": language, "prompt": prompt, "temperature": temperature or None}
    if served.tasks[task].target.writes_text:
        timed = response_format in ("srt", "vtt")
        settings: dict[str, Any] = {}
        if language:
            settings["language"] = language
        if temperature:
            settings |= {"do_sample": True, "temperature": temperature}
        if timed:
            settings["return_timestamps"] = True
        writing = served.writing(task, settings)
        given = {**row, "prompt": prompt} if prompt else row
        ((answer, *_),) = await served.write(writing, [given], call.usage)
    else:
        for name, value in options.items():
            if value:
                raise RequestError(f"{name}: task {task!r} does not know it; leave it out")
        (answer,) = await served.answer(task, [row], call.usage)
    if "error" in answer:
        raise RequestError(answer["error"])
    text = answer.get("text", answer.get("transcript", answer.get("answer", "")))
    call.end()
    headers = dict(call.response.headers)
    if response_format in ("srt", "vtt"):
        if "segments" not in answer:
            raise RequestError(f"{response_format}: task {task!r} hears no times; ask for json")
        return PlainTextResponse(subtitles(answer["segments"], f".{response_format}"), 200, headers)
    if response_format == "text":
        return PlainTextResponse(f"{text}\n", 200, headers)
    content: dict[str, Any] = {"text": text}
    if response_format == "verbose_json":
        content |= {"task": "transcribe", "language": answer.get("language", language or "")}
        content |= {"duration": _seconds(served, task, row["sound"])}
        content |= {"segments": answer.get("segments", [])}
    return JSONResponse(content, 200, headers)


def is_transcription(task: ResolvedTask) -> bool:
    """Whether a task writes down what is said."""
    return task.entry.given == ("sound",) and (
        task.target.writes_text or "transcript" in task.entry.fields
    )


def _seconds(model: ServedModel, task: str, content: bytes) -> float:
    processor: Any = model.predictor.context(model.tasks[task]).processors[Modality.SOUND]
    waveform = processor.waveform(content)
    return len(waveform) / processor.stream.sample_rate


class Schema(Body):
    """A JSON schema, as `response_format` holds it."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """What a text must be."""

    type: Literal["text", "json_schema"]
    json_schema: Schema | None = None


class StreamOptions(Body):
    """`include_usage`: a last piece tells the tokens."""

    include_usage: bool = False


class WritingRequest(Body):
    """How a text is written; names of OpenAI, and below them those of `DecodingConfig`."""

    model: str | None = None
    task: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0, or neither it nor top_p: each token is the most probable one."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] = 1
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=16)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] | None = None

    def stops(self) -> list[str]:
        """The strings that end an answer."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [one for one in found if one]

    def settings(self) -> dict[str, Any]:
        """As settings of `DecodingConfig`."""
        draws = bool(self.temperature) or (self.temperature is None and self.top_p is not None)
        given = {
            "max_new_tokens": self.max_tokens,
            "do_sample": True if draws else None,
            "temperature": self.temperature or None,
            "top_p": self.top_p if draws else None,
            "top_k": self.top_k,
            "seed": self.seed,
            "num_return_sequences": self.n if self.n > 1 else None,
            "num_beams": self.num_beams,
            "repetition_penalty": self.repetition_penalty,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "stop_strings": self.stops() or None,
        }
        if self.n > 1 and not draws and (self.num_beams or 1) < self.n:
            raise RequestError(
                "n: several answers differ only when they are drawn; set temperature"
            )
        return {name: value for name, value in given.items() if value is not None}


class CompletionRequest(WritingRequest):
    """What `client.completions.create` sends."""

    prompt: str | Annotated[list[str], Field(min_length=1)]


@router.post("/completions", response_model=None)
async def completions(
    body: CompletionRequest, models: ServedModels, call: Called
) -> Response | dict[str, Any]:
    """How a text goes on, by a language model."""
    model, asked = models.find(body.model, body.task)
    task = model.first(continues_texts, "continue a text", asked)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    call.begin(model, len(prompts))
    writing = model.writing(task, body.settings())
    about = {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time())}
    about |= {"model": body.model or model.name, "object": "text_completion"}
    rows = [{"text": prompt} for prompt in prompts]
    if body.stream:
        if len(rows) > 1:
            raise RequestError("stream: one prompt at a time")

        def told(piece: str | None, reason: str | None) -> dict[str, Any]:
            return {"index": 0, "text": piece or "", "logprobs": None, "finish_reason": reason}

        return await _streamed(body, model, writing, rows[0], about, told, call)
    answers = await _written_texts(model, writing, rows, body, call)
    choices = [
        {"index": i, "text": text, "logprobs": None, "finish_reason": reason}
        for i, (text, reason) in enumerate(answers)
    ]
    return about | {"choices": choices, "usage": _usage(writing, prompts, answers)}


class Message(Body):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    @property
    def parts(self) -> Sequence[Any]:
        """Its parts."""
        return [TextPart(text=self.content)] if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """Its texts."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class ChatRequest(WritingRequest):
    """What `client.chat.completions.create` sends."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: ResponseFormat | None = None

    def settings(self) -> dict[str, Any]:
        """See `WritingRequest`."""
        found = super().settings()
        if self.max_completion_tokens:
            found["max_new_tokens"] = self.max_completion_tokens
        if self.response_format and self.response_format.json_schema:
            found["json_schema"] = self.response_format.json_schema.schema_
        return found


@router.post("/chat/completions", response_model=None)
async def chat(body: ChatRequest, models: ServedModels, call: Called) -> Response | dict[str, Any]:
    """What a model writes to messages: a language model to all of them, by the chat template of its
    folder if it has one; another task, such as one that describes pictures, to the last."""
    model, asked = models.find(body.model, body.task)
    task = model.first(lambda one: one.target.writes_text, "write", asked)
    call.begin(model, len(body.messages))
    row = chat_row(model, task, body.messages)
    writing = model.writing(task, body.settings())
    about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}
    about |= {"model": body.model or model.name}
    if body.stream:
        about["object"] = "chat.completion.chunk"

        def told(piece: str | None, reason: str | None) -> dict[str, Any]:
            delta = {} if piece is None else {"role": "assistant", "content": piece}
            return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}

        return await _streamed(body, model, writing, row, about, told, call)
    about["object"] = "chat.completion"
    answers = await _written_texts(model, writing, [row], body, call)
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": reason,
        }
        for i, (text, reason) in enumerate(answers)
    ]
    return about | {"choices": choices, "usage": _usage(writing, [row.get("text", "")], answers)}


def chat_row(model: ServedModel, task: str, messages: Sequence[Message]) -> dict[str, Any]:
    """What a task reads of a chat. Raises RequestError for parts that it does not read."""
    resolved = model.tasks[task]
    if continues_texts(resolved):
        for message in messages:
            if any(not isinstance(part, TextPart) for part in message.parts):
                raise RequestError(f"task {task!r} reads texts alone")
        turns = [{"role": one.role, "content": one.text} for one in messages]
        return {"text": model.chat_template.render(turns)}
    fields, last = resolved.entry.given, messages[-1]
    row: dict[str, Any] = {}
    for modality, value in read_all(last.parts, model.settings):
        if modality not in fields:
            what = f"task {task!r} reads {', '.join(fields)} of the last message, not {modality}"
            raise RequestError(what)
        row[modality] = f"{row['text']}{value}" if modality == "text" and "text" in row else value
    if missing := [field for field in fields if field not in row]:
        raise RequestError(f"the last message has no {missing[0]}, which task {task!r} reads")
    return row


def continues_texts(task: ResolvedTask) -> bool:
    """Whether a task is that of a language model."""
    return task.target.writes_text and not task.entry.answer_field and len(task.entry.spans) == 1


Texts = list[tuple[str, str]]
"""Texts, each with the reason why it ends."""


async def _written_texts(
    model: ServedModel,
    writing: Writing,
    rows: Sequence[dict[str, Any]],
    body: WritingRequest,
    call: Call,
) -> Texts:
    found: Texts = []
    for number, answers in enumerate(await model.write(writing, rows, call.usage)):
        for answer in answers:
            if "error" in answer:
                raise RequestError(f"input {number}: {answer['error']}")
            found.append(_ended(answer["text"], body, writing))
    call.end()
    return found


def _ended(text: str, body: WritingRequest, writing: Writing) -> tuple[str, str]:
    """A text without the string that ended it, and why it ends."""
    places = [place for one in body.stops() if (place := text.find(one)) >= 0]
    if places:
        return text[: min(places)], "stop"
    return text, "length" if writing.count(text) >= writing.room else "stop"


def _usage(writing: Writing, prompts: Sequence[str], answers: Texts) -> dict[str, int]:
    read = sum(map(writing.count, prompts))
    written = sum(writing.count(text) for text, _ in answers)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def _streamed(
    body: WritingRequest,
    model: ServedModel,
    writing: Writing,
    row: dict[str, Any],
    about: dict[str, Any],
    told: Any,
    call: Call,
) -> Response:
    """Server-sent events. The first piece is awaited, so that a broken input has its status."""
    if body.n > 1 or (body.num_beams or 1) > 1:
        raise RequestError("stream: one text as it is written; leave n and num_beams at 1")
    call.usage.task = writing.writer.task.name
    call.usage.parameters = model.parameters(call.usage.task)
    pieces = model.stream(writing, row)
    try:
        first: str | None = await anext(pieces, None)
    except BadInput as error:
        raise RequestError(str(error)) from None
    call.end()

    async def events() -> AsyncIterator[str]:
        text, sent, stops = "", 0, body.stops()
        held = max(map(len, stops), default=1) - 1  # what may be the beginning of a stop string
        piece, reason = first, "stop"
        try:
            while piece is not None:
                text += piece
                ended, _ = _ended(text, body, writing) if stops else (text, "")
                whole = len(ended) < len(text)
                upto = len(ended) if whole else max(sent, len(text) - held)
                if upto > sent:
                    yield _event(about | {"choices": [told(text[sent:upto], None)]})
                    sent = upto
                if whole:
                    break
                piece = await anext(pieces, None)
            text, reason = _ended(text, body, writing)
            if len(text) > sent:
                yield _event(about | {"choices": [told(text[sent:], None)]})
        except Exception as error:
            told_error = str(error) if isinstance(error, BadInput | RequestError) else "internal"
            yield _event({"error": {"message": told_error, "type": "server_error"}})
            return
        finally:
            await pieces.aclose()  # ty: ignore[missing-attribute] a generator
        model.metrics.generated.observe(writing.count(text))
        yield _event(about | {"choices": [told(None, reason)]})
        if body.stream_options and body.stream_options.include_usage:
            usage = _usage(writing, [row.get("text", "")], [(text, reason)])
            yield _event(about | {"choices": [], "usage": usage})
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers=call.usage.headers())


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"

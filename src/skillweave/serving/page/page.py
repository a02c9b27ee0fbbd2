"""The page itself, made with Gradio and served with the endpoints. Its files are Gradio's own: it
asks no other host for anything."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from skillweave.config import ConfigError
from skillweave.config.reading import read_object
from skillweave.data.processors import BadInput
from skillweave.reporting.report import INTERFERENCE_FILE
from skillweave.retrieval.filters import parse_filters
from skillweave.serving.collections import Collections
from skillweave.serving.errors import RequestError
from skillweave.serving.models import Models, ServedModel, Usage
from skillweave.serving.page import fragments
from skillweave.serving.page.texts import LANGUAGES, both, language_of, translated
from skillweave.serving.routes.openai import is_transcription
from skillweave.serving.routes.scoring import named
from skillweave.tasks.task import ResolvedTask

CACHE_SECONDS = 600
"""How long files stay that people gave the page."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self'"
    " 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self'"
    " data:; connect-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'self'"
)
"""What a browser may load for the page: nothing from elsewhere."""
EXAMPLES = ("image", "sound", "video")
"""Modalities of which an example can be given as a file."""
PREFIX = "skillweave_"
"""Begins the names of our words: Gradio has words of its own."""
Word = Callable[[str], Any]
TOLD = (RequestError, BadInput, ConfigError)
"""Faults that people are told."""


def mount_page(app: FastAPI, models: Models, collections: Collections) -> FastAPI:
    """Add the page at / to an application."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    blocks = Page(models, collections).build()
    mounted = gr.mount_gradio_app(
        app,
        blocks,
        "/",
        theme=gr.themes.Soft(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=Path(__file__).with_name("page.css").read_text("utf-8") + fragments.code_style(),
        i18n=_translations(),
        footer_links=[],
        run_history=False,
        max_file_size=models.settings.max_body_bytes,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
    )
    app.add_middleware(PageGuard)
    return mounted


class PageGuard:
    """Keeps the page to itself: browsers load nothing from other hosts for it, and nobody makes it
    fetch an address in place of a file."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name == b"content-security-policy" for name, _ in headers):
                    headers.append((b"content-security-policy", POLICY.encode()))
                message["headers"] = headers
            await send(message)

        of_page = scope["method"] == "POST" and scope["path"].startswith("/gradio_api/")
        if not of_page or scope["path"].startswith("/gradio_api/upload"):
            await self.app(scope, receive, answer)
            return
        read = await receive()  # the whole body: `Protection` has put it together
        if names_addresses(read.get("body", b"")):
            raise RequestError("the page takes files, not web addresses")
        first = [read]

        async def replayed() -> Any:
            return first.pop() if first else await receive()

        await self.app(scope, replayed, answer)


def names_addresses(body: bytes) -> bool:
    """Whether JSON holds the file of a component at a web address."""
    try:
        left = [json.loads(body)] if body else []
    except (ValueError, RecursionError):
        return False
    while left:
        value = left.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and path.strip().lower().startswith(("http:", "https:")):
                return True
            left += value.values()
        elif isinstance(value, list):
            left += value
    return False


class Page:
    """The tabs that the models have a use for. `collections`: what is searched."""

    def __init__(self, models: Models, collections: Collections) -> None:
        self.models, self.collections = models, collections
        translations = _translations()
        self.word: Word = lambda name: translations(PREFIX + name)

    def build(self) -> gr.Blocks:
        """The page."""
        t = self.word
        with gr.Blocks(
            title="skillweave",
            analytics_enabled=False,
            fill_width=True,
            delete_cache=(CACHE_SECONDS, CACHE_SECONDS),
        ) as blocks:
            head = gr.HTML()
            with gr.Tabs():
                if self.collections:
                    with gr.Tab(t("search")):
                        self._search()
                if found := self.models.first_task(asks_about_media):
                    with gr.Tab(t("ask")):
                        self._ask(*found)
                if names := [m for m in self.models if _zero_shot(m)]:
                    with gr.Tab(t("classify")):
                        self._classify(names[0])
                if found := self.models.first_task(is_transcription):
                    with gr.Tab(t("transcribe")):
                        self._transcribe(*found)
                if found := self.models.first_task(lambda task: task.target.writes_text):
                    with gr.Tab(t("write")):
                        self._write(*found)
                with gr.Tab(t("interference")):
                    effects = gr.HTML()
                with gr.Tab(t("model")):
                    about = gr.HTML()
            blocks.load(self._about, None, [head, effects, about], api_visibility="private")
        return blocks

    def _about(self, request: gr.Request) -> tuple[str, str, str]:
        words = _words(request)
        head = (
            f'<header class="sw-head"><h1>skillweave</h1><p>{escape(words["title"])}</p></header>'
        )
        models = "".join(fragments.about_model(model, words) for model in self.models)
        empty = "" if self.collections else fragments.message(words["no_data"])
        effects = "".join(
            fragments.interference(model.name, effects_of(model), words) for model in self.models
        )
        return head, effects, f"{empty}{models}"

    def _search(self) -> None:
        t = self.word
        found = {one.index.modality: one for one in self.collections}
        examples = [m for m in EXAMPLES if any(m in one.asked for one in self.collections)]
        with gr.Row(equal_height=True):
            query = gr.Textbox(
                label=t("query"), placeholder=t("query_hint"), scale=5, autofocus=True, lines=1
            )
            go = gr.Button(t("go"), variant="primary", scale=1, min_width=110)
        within = gr.Radio(
            [(both(name), name) for name in found],
            value=next(iter(found)),
            label=t("within"),
            visible=len(found) > 1,
        )
        with gr.Row():
            with gr.Accordion(t("example"), open=False), gr.Row():
                files = [_file(modality, t) for modality in examples]
            with gr.Accordion(t("options"), open=False), gr.Row():
                count = gr.Slider(1, 50, 12, step=1, label=t("count"))
                where = gr.Textbox(label=t("where"), placeholder=t("where_hint"), lines=1)
                by_words = gr.Checkbox(label=t("words"))
        ran, results = gr.HTML(), gr.HTML()

        async def find(
            request: gr.Request,
            text: str | None,
            modality: str,
            count: int,
            where: str | None,
            by_words: bool,
            *given: Any,
        ) -> tuple[str, str]:
            words = _words(request)
            collection, usage = found[modality], Usage()
            try:
                query = _asked(text, dict(zip(examples, given, strict=True)), words)
                filters = parse_filters([one for one in (where or "").split(",") if one.strip()])
                hits = await collection.search(query, int(count), usage, filters, by_words)
            except TOLD as error:
                return fragments.message(str(error)), ""
            shown = fragments.results(collection, hits, words)
            return shown, fragments.part_that_ran(collection.model, usage, words)

        self._on(
            [go.click, query.submit, within.change],
            find,
            [query, within, count, where, by_words, *files],
            [results, ran],
        )
        for file in files:
            self._on(
                [file.change], find, [query, within, count, where, by_words, *files], [results, ran]
            )

    def _ask(self, model: ServedModel, task: ResolvedTask) -> None:
        t = self.word
        (about,) = (modality for modality in EXAMPLES if modality in task.entry.given)
        with gr.Row():
            file = _file(about, t, "question")
            with gr.Column():
                question = gr.Textbox(label=t("question"), placeholder=t("question_hint"), lines=2)
                go = gr.Button(t("ask_go"), variant="primary")
                answered = gr.HTML()
        ran = gr.HTML()

        async def ask(
            request: gr.Request, file: str | None, question: str | None
        ) -> tuple[str, str]:
            words, usage = _words(request), Usage()
            try:
                if not file or not question or not question.strip():
                    raise RequestError(words["give_both"])
                row = {about: Path(file).read_bytes(), "question": question}
                (answer,) = await model.answer(task.name, [row], usage)
            except TOLD as error:
                return fragments.message(str(error)), ""
            if "error" in answer:
                return fragments.message(answer["error"]), ""
            shown = fragments.answer(answer["answer"], answer.get("probabilities", {}))
            return shown, fragments.part_that_ran(model, usage, words)

        self._on([go.click, question.submit], ask, [file, question], [answered, ran])

    def _classify(self, model: ServedModel) -> None:
        t = self.word
        modalities = [m for m in EXAMPLES if _relates(model, m)]
        text = gr.Textbox(label=t("to_classify"), lines=2)
        with gr.Row():
            files = [_file(modality, t) for modality in modalities]
        labels = gr.Textbox(label=t("labels"), placeholder=t("labels_hint"), lines=1)
        go = gr.Button(t("sort"), variant="primary")
        results, ran = gr.HTML(), gr.HTML()

        async def sort(
            request: gr.Request, text: str | None, labels: str | None, *given: Any
        ) -> tuple[str, str]:
            words, usage = _words(request), Usage()
            names = [n.strip() for n in (labels or "").replace("，", ",").split(",") if n.strip()]
            try:
                query = _asked(text, dict(zip(modalities, given, strict=True)), words)
                if len(names) < 2:
                    return fragments.message(words["labels"]), ""
                shares = await named(model, None, [query], names, usage)
            except TOLD as error:
                return fragments.message(str(error)), ""
            by_name = dict(zip(names, shares[0].tolist(), strict=True))
            return fragments.classes(by_name), fragments.part_that_ran(model, usage, words)

        self._on([go.click, labels.submit], sort, [text, labels, *files], [results, ran])

    def _transcribe(self, model: ServedModel, task: ResolvedTask) -> None:
        t = self.word
        sound = _file("sound", t)
        go = gr.Button(t("listen"), variant="primary")
        text, ran = gr.Textbox(label=t("transcript"), buttons=["copy"], lines=2), gr.HTML()

        async def listen(request: gr.Request, file: str | None) -> tuple[str, str]:
            words, usage = _words(request), Usage()
            try:
                row = {"sound": _asked("", {"sound": file}, words)[1]}
                if task.target.writes_text:
                    ((answer, *_),) = await model.write(model.writing(task.name, {}), [row], usage)
                else:
                    (answer,) = await model.answer(task.name, [row], usage)
            except TOLD as error:
                return "", fragments.message(str(error))
            if "error" in answer:
                return "", fragments.message(answer["error"])
            said = answer.get("text", answer.get("transcript", ""))
            return said, fragments.part_that_ran(model, usage, words)

        self._on([go.click, sound.change], listen, [sound], [text, ran])

    def _write(self, model: ServedModel, task: ResolvedTask) -> None:
        t = self.word
        about = [m for m in EXAMPLES if m in task.entry.given]
        prompt = gr.Textbox(label=t("prompt"), lines=3)
        files = [_file(modality, t, "question") for modality in about]
        most = gr.Slider(1, 256, 64, step=1, label=t("most"))
        go = gr.Button(t("compose"), variant="primary")
        text, ran = gr.Textbox(label=t("answer"), lines=5, buttons=["copy"]), gr.HTML()

        async def compose(
            request: gr.Request, prompt: str, most: int, *given: Any
        ) -> AsyncIterator[tuple[str, str]]:
            words = _words(request)
            usage, written = Usage(task=task.name, modalities={*model.modalities(task.name)}), ""
            usage.parameters = model.parameters(task.name)
            row: dict[str, Any] = {}
            for modality, file in zip(about, given, strict=True):
                if file:
                    row[modality] = Path(file).read_bytes()
            if prompt:
                row["text" if "text" in task.entry.given or not about else "prompt"] = prompt
            try:
                writing = model.writing(task.name, {"max_new_tokens": int(most)})
                async for piece in model.stream(writing, row):
                    written += piece
                    yield written, ""
            except TOLD as error:
                yield written, fragments.message(str(error))
                return
            yield written, fragments.part_that_ran(model, usage, words)

        self._on([go.click], compose, [prompt, most, *files], [text, ran])

    def _on(
        self, events: Sequence[Any], function: Any, inputs: list[Any], outputs: list[Any]
    ) -> None:
        """Call a function at some events."""
        gr.on(
            list(events),
            function,
            inputs,
            outputs,
            api_visibility="private",
            concurrency_limit=None,
            show_progress="minimal",
            trigger_mode="always_last",
        )


def asks_about_media(task: ResolvedTask) -> bool:
    """Whether a task answers a question about a picture, a recording or a clip."""
    given = task.entry.given
    return "question" in given and any(modality in given for modality in EXAMPLES)


def effects_of(model: ServedModel) -> dict[str, Any] | None:
    """What `skillweave interference` left in the folder of a model; None for nothing that can be
    read."""
    try:
        found = read_object(Path(model.path) / INTERFERENCE_FILE)
    except ConfigError:
        return None
    return found if {"tasks", "blocks"} <= found.keys() else None


def _translations() -> gr.I18n:
    """The words of the page in all its languages; a browser chooses."""
    found = {}
    for language in LANGUAGES:
        words = translated(language)
        found[language] = {PREFIX + name: text for name, text in words.items()}
    return gr.I18n(**found)


def _words(request: gr.Request) -> fragments.Words:
    """The words of the page in the language of a browser."""
    return translated(language_of(request.headers.get("accept-language", "")))


def _asked(
    text: str | None, files: dict[str, str | None], words: fragments.Words
) -> tuple[str, Any]:
    """The modality and value that a person gave: a file before a text. Raises RequestError for
    nothing."""
    for modality, file in files.items():
        if file:
            return modality, Path(file).read_bytes()
    if not text or not text.strip():
        raise RequestError(words["give"])
    return "text", text


def _file(modality: str, t: Word, name: str = "example") -> Any:
    """What a person gives a file with: chosen, dropped or recorded."""
    label = t(f"{name}_{modality}")
    if modality == "image":
        return gr.Image(label=label, type="filepath", sources=["upload", "clipboard"], height=200)
    if modality == "sound":
        return gr.Audio(label=label, type="filepath", sources=["microphone", "upload"])
    return gr.Video(label=label, sources=["upload"], height=200)


def _relates(model: ServedModel, modality: str) -> bool:
    """Whether a task compares a modality with texts."""
    return any({"text", modality} <= {*there} for there in model.embeds.values())


def _zero_shot(model: ServedModel) -> bool:
    return any(_relates(model, modality) for modality in (*EXAMPLES, "text"))

"""The models of a service: what each can do, by name, each behind its engine."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.config.base import nearest
from skillweave.data.processors import BadInput, isolation
from skillweave.inference.loading import choose_device, load
from skillweave.inference.predictor import Predictor, Vectors
from skillweave.model.folders import is_hf_model, model_folder
from skillweave.model.model import Model
from skillweave.retrieval.index import searchable
from skillweave.serving.engine import Engine, Outcome
from skillweave.serving.errors import NotFound, RequestError
from skillweave.serving.metrics import Metrics
from skillweave.serving.operations import Answers, Encoding, Operation, Writing
from skillweave.serving.settings import ServiceConfig
from skillweave.serving.templates import ChatTemplate
from skillweave.tasks.task import ResolvedTask
from skillweave.weights.adapters import Adapter, is_tuned

WRITERS = 64
"""Settings of texts whose writers are kept."""


@dataclass
class Usage:
    """What a request cost. `task`: that was done. `modalities`: what the model read and wrote.
    `parameters`: those that the task activates."""

    task: str = ""
    modalities: set[str] = field(default_factory=set)
    tokens: int = 0
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0
    parameters: int = 0

    def add(self, outcome: Outcome) -> None:
        """Add what a call of the engine cost."""
        self.tokens += outcome.tokens
        self.queue_seconds = max(self.queue_seconds, outcome.queue_seconds)
        self.inference_seconds += outcome.inference_seconds

    def headers(self) -> dict[str, str]:
        """As headers of an answer, named as text-embeddings-inference's; times in milliseconds."""
        return {
            "x-compute-tokens": str(self.tokens),
            "x-queue-time": f"{1000 * self.queue_seconds:.1f}",
            "x-inference-time": f"{1000 * self.inference_seconds:.1f}",
            "x-activated-parameters": str(self.parameters),
        }


class ServedModel:
    """A saved model and what it can do.

    `path`: see `skillweave.load`. `tasks`: load the slice of these alone; all if None. `model`: the
    model of the path, if it is in memory.
    """

    def __init__(
        self,
        name: str,
        path: str | Path,
        settings: ServiceConfig,
        metrics: Metrics,
        pool: ThreadPoolExecutor,
        tasks: Collection[str] | None = None,
        device: str = "auto",
        model: Model | None = None,
    ) -> None:
        self.name, self.path, self.settings, self.metrics = name, path, settings, metrics
        self.pool, self.created = pool, int(time.time())
        self.predictor = Predictor(path if model is None else model, tasks, device)
        model = copy.copy(self.predictor.model)  # its settings below are its own
        self.predictor.model = model
        limits = model.config.limits.model_copy(
            update={"isolate": settings.isolate, "max_bytes": settings.max_body_bytes}
        )
        model.config = model.config.model_copy(update={"limits": limits})
        self.model = model.eval().requires_grad_(False)
        self.engine = Engine(model, settings.max_batch_tokens, metrics)
        # called by the engine's thread alone
        resolved = lru_cache(settings.merged_tasks)(model.resolve)
        self.encoding = lru_cache(maxsize=None)(partial(Encoding, self.predictor, resolved))
        self.answers = lru_cache(maxsize=None)(partial(Answers, self.predictor))
        self.parameters = lru_cache(maxsize=None)(model.count_parameters)
        self._writing = lru_cache(maxsize=WRITERS)(self._open_writing)

    @property
    def tasks(self) -> dict[str, ResolvedTask]:
        """The tasks that are served, by name."""
        return self.predictor.tasks

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """How chats are written as texts."""
        return ChatTemplate.of(self.model)

    @cached_property
    def embeds(self) -> dict[str, list[str]]:
        """Task → the modalities that it encodes alone, those that compare modalities first."""
        related = searchable(self.predictor)
        order = [*related, *(n for n in self.model.config.tasks if n not in related)]
        found = {}
        for task in order:
            there = []
            for modality in Modality:
                with suppress(ConfigError):
                    self.predictor.single_pass(task, modality.value)
                    there.append(modality.value)
            if there:
                found[task] = there
        return found

    def modalities(self, task: str | None = None) -> list[str]:
        """The modalities of a task, or of the whole model."""
        if task is None:
            return [modality.value for modality in self.model.config.streams.present()]
        spans = self.model.config.tasks[task].spans
        return list(dict.fromkeys(span.modality.value for span in spans))

    def task(self, name: str) -> ResolvedTask:
        """A task by name. Raises NotFound with the nearest name."""
        if name not in self.tasks:
            raise NotFound(f"unknown task {name[:100]!r}{nearest(name, self.tasks)}")
        return self.tasks[name]

    def embedding_task(self, modalities: Collection[str], asked: str | None = None) -> str:
        """The task whose vectors of these modalities are comparable. Raises NotFound."""
        if asked is not None and asked not in self.embeds:
            raise NotFound(f"unknown task {asked[:100]!r}{nearest(asked, self.embeds)}")
        for name, there in self.embeds.items():
            if asked in (None, name) and {*modalities} <= {*there}:
                return name
        told = "; ".join(f"{name}: {', '.join(there)}" for name, there in self.embeds.items())
        raise RequestError(f"no task here encodes {' and '.join(sorted(modalities))} ({told})")

    def first(self, does: Callable[[ResolvedTask], bool], what: str, asked: str | None) -> str:
        """The task that is asked for, or the first that does something. Raises NotFound."""
        usable = [name for name, task in self.tasks.items() if does(task)]
        if asked is not None and self.task(asked) and asked not in usable:
            raise RequestError(f"task {asked!r} does not {what}; {_listed(usable)}")
        if not usable:
            raise NotFound(f"no task of {self.name!r} can {what}; it has {_listed(self.tasks)}")
        return asked or usable[0]

    async def encode(
        self,
        inputs: Sequence[tuple[str, Any]],
        task: str | None,
        usage: Usage,
        prompt: str | None = None,
    ) -> Vectors:
        """Unit vectors [N, D] of pairs of modality and value. Raises RequestError that names the
        first input that cannot be used."""
        modalities = {modality for modality, _ in inputs}
        task = self.embedding_task(modalities, task)
        usage.modalities |= modalities
        usage.task, usage.parameters = task, self.parameters(task)
        groups = {m: [i for i, (own, _) in enumerate(inputs) if own == m] for m in modalities}
        vectors: list[Any] = [None] * len(inputs)
        for modality, numbers in groups.items():
            given = prompt if modality == "text" else None
            try:
                operation = self.encoding(task, modality, given)
            except ConfigError as error:
                raise RequestError(str(error)) from None
            found = await self._run(operation, [inputs[i][1] for i in numbers], usage)
            for number, result in zip(numbers, found, strict=True):
                if isinstance(result, BadInput):
                    raise RequestError(f"input {number}: {result}")
                vectors[number] = result
        return np.stack(vectors)

    async def answer(
        self, task: str, rows: Sequence[Mapping[str, Any]], usage: Usage
    ) -> list[dict[str, Any]]:
        """The answers of a task; `{"error": reason}` for a row that cannot be used."""
        usage.modalities.update(self.modalities(task))
        usage.task, usage.parameters = task, self.parameters(task)
        found = await self._run(self.answers(task), rows, usage)
        return [{"error": str(one)} if isinstance(one, BadInput) else one for one in found]

    def writing(self, task: str, settings: Mapping[str, Any]) -> Writing:
        """What writes with some settings. Raises RequestError for settings that do not fit."""
        told = json.dumps(settings, sort_keys=True)
        try:
            return self._writing(task, told)
        except (ConfigError, BadInput) as error:
            raise RequestError(str(error)) from None

    async def write(
        self, writing: Writing, rows: Sequence[Mapping[str, Any]], usage: Usage
    ) -> list[list[dict[str, Any]]]:
        """For each row its answers: see `TextWriter.write`."""
        usage.task = writing.writer.task.name
        usage.modalities.update(self.modalities(usage.task))
        usage.parameters = self.parameters(usage.task)
        found = await self._run(writing, rows, usage)
        return [[{"error": str(x)}] if isinstance(x, BadInput) else x for x in found]

    def stream(self, writing: Writing, row: Mapping[str, Any]) -> AsyncIterator[str]:
        """The answer for a row, in pieces."""
        return self.engine.stream(writing, row)

    def scale(self, task: str) -> float:
        """What a task multiplies cosines by before a softmax. Raises RequestError for a task that
        compares nothing."""
        target: Any = self.model.targets[self.tasks[task].target_name]
        try:
            return float(target.scale)
        except AttributeError:
            raise RequestError(f"task {task!r} compares no vectors") from None

    def _open_writing(self, task: str, settings: str) -> Writing:
        return Writing(self.predictor, task, json.loads(settings))

    async def _run(
        self, operation: Operation, values: Sequence[Any], usage: Usage
    ) -> list[Any | BadInput]:
        """The result for each value, or why it cannot be used."""
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        items = await loop.run_in_executor(self.pool, _prepare_all, operation, values)
        self.metrics.validation.observe(time.perf_counter() - begun)
        good = [item for item in items if not isinstance(item, BadInput)]
        outcome = await self.engine.run(operation, good)
        usage.add(outcome)
        self.metrics.queue_duration.observe(outcome.queue_seconds)
        self.metrics.inference.observe(outcome.inference_seconds)
        self.metrics.input_length.observe(outcome.tokens)
        results = iter(outcome.results)
        return [one if isinstance(one, BadInput) else next(results) for one in items]


class Models:
    """All models of a service. `paths`: where each is saved, also `NAME=PATH`."""

    def __init__(
        self,
        paths: Iterable[str],
        settings: ServiceConfig,
        tasks: Collection[str] | None = None,
        device: str = "auto",
    ) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.by_name: dict[str, ServedModel] = {}
        self.pool = ThreadPoolExecutor(settings.workers, "reader")
        named: dict[str, str] = {}
        for given in paths:
            name, path = split_name(given)
            if name in named:
                raise ConfigError(f"two models are called {name!r}; write NAME={path} for one")
            named[name] = path
        bases: dict[str, Model] = {}
        for name, path in named.items():
            model = None if tasks is not None else _tuned(path, bases, device)
            self.by_name[name] = served = ServedModel(
                name, path, settings, self.metrics, self.pool, tasks, device, model
            )
            if tasks is None and model is None and not is_hf_model(path):
                bases[os.path.realpath(model_folder(path))] = served.predictor.model
        if settings.isolate:
            limits = next(iter(self)).model.config.limits
            self.pool.submit(isolation.start, limits)

    def find(self, name: str | None, task: str | None = None) -> tuple[ServedModel, str | None]:
        """A model by its name, and the task of a name such as `MODEL:TASK`. Without a name the
        first model, or the first that has the task. Raises NotFound."""
        if name is None:
            having = (one for one in self if task is None or task in one.model.config.tasks)
            found = next(having, next(iter(self)))
            return found, task
        if name not in self.by_name:
            name, _, own = name.rpartition(":")
            task = task or own
        if name not in self.by_name:
            given = f"{name}:{task}".removeprefix(":") if task else name
            raise NotFound(f"unknown model {given[:100]!r}; served are {_listed(self.by_name)}")
        return self.by_name[name], task

    def first_task(
        self, does: Callable[[ResolvedTask], bool]
    ) -> tuple[ServedModel, ResolvedTask] | None:
        """The first task that does something, and its model; None where none does."""
        found = ((model, task) for model in self for task in model.tasks.values() if does(task))
        return next(found, None)

    def __iter__(self) -> Any:
        return iter(self.by_name.values())

    def stop(self, seconds: float) -> None:
        """Finish what was accepted."""
        end = time.monotonic() + seconds
        for model in self:
            model.engine.stop(max(0.0, end - time.monotonic()))
        self.pool.shutdown(wait=False, cancel_futures=True)


def _tuned(path: str, bases: dict[str, Model], device: str) -> Model | None:
    """The model of a folder that holds a tuning, whose other weights are those of its base in
    `bases`; the base is loaded if it is not there. None for any other model."""
    if is_hf_model(path) or not is_tuned(folder := model_folder(path)):
        return None
    base = os.path.realpath(Adapter.read(folder).base)
    if base not in bases:
        bases[base] = load(base).to(choose_device(device))
    return bases[base].with_tuning(folder)


def split_name(given: str) -> tuple[str, str]:
    """The name and the place of a model: `NAME=PATH`, or a path, which is called after its last
    folder, or the name of a packaged model or of one on the hub."""
    name, separator, path = given.partition("=")
    if separator and name and not Path(given).exists():
        return name, path
    return (Path(given).resolve().name if Path(given).exists() else given), given


def _prepare_all(operation: Operation, values: Sequence[Any]) -> list[Any | BadInput]:
    items: list[Any | BadInput] = []
    for value in values:
        try:
            items.append(operation.prepare(value))
        except BadInput as error:
            items.append(error)
    return items


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"

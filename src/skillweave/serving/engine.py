"""One thread that runs a model on what waits: items of any requests and tasks, up to so many tokens
at a time.

While the model runs, what comes in waits and becomes the next batch; so batches grow with the load,
and nothing waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from skillweave.model.model import Model
from skillweave.serving.errors import Overloaded, Unavailable
from skillweave.serving.metrics import Metrics
from skillweave.serving.operations import Item, Operation, Writing
from skillweave.tasks.predictions import evaluating

WAITING_BATCHES = 64
"""Batches whose tokens may wait."""
_END = object()


@dataclass(eq=False)
class Job:
    """An item that waits. `since`: when it came."""

    operation: Operation
    item: Item
    cost: int
    future: Future[Any] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    ended: float = 0.0


@dataclass(eq=False)
class Stream:
    """A text that is being written, piece by piece. `pieces`: the queue of the loop that reads
    them."""

    operation: Writing
    item: Item
    loop: asyncio.AbstractEventLoop
    pieces: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    written: Iterator[str] | None = None
    left: bool = False
    """Whether nobody reads it any more."""

    def give(self, piece: Any) -> None:
        """Hand a piece, an error or the end to the reader."""
        with suppress(RuntimeError):  # its loop has ended
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


@dataclass(frozen=True)
class Outcome:
    """`results`: one per item. `tokens`: read and written. Times in seconds."""

    results: list[Any]
    tokens: int
    queue_seconds: float
    inference_seconds: float


class Engine:
    """Runs one model. `max_batch_tokens`: see `ServiceConfig`."""

    def __init__(self, model: Model, max_batch_tokens: int, metrics: Metrics) -> None:
        self.model, self.max_batch_tokens, self.metrics = model, max_batch_tokens, metrics
        self.jobs: deque[Job] = deque()
        self.streams: list[Stream] = []
        self.tokens = 0
        self.stopping = False
        self.changed = threading.Condition()
        self.tokens_per_second = float(max_batch_tokens)
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.thread.start()

    async def run(self, operation: Operation, items: Sequence[Item]) -> Outcome:
        """The results of items. Raises Overloaded when too much waits, Unavailable when the engine
        stops, and what the operation raises."""
        jobs = [Job(operation, item, operation.cost(item)) for item in items]
        self._add(jobs)
        try:
            results = await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))
        except BaseException as error:
            ended = isinstance(error, asyncio.CancelledError) and not self.thread.is_alive()
            for job in jobs:
                job.future.cancel()
            if ended:
                raise Unavailable("the model has stopped") from None
            raise
        begun = min((job.started - job.since for job in jobs), default=0.0)
        seconds = max((job.ended - job.started for job in jobs), default=0.0)
        return Outcome(list(results), sum(job.cost for job in jobs), begun, seconds)

    async def stream(self, operation: Writing, item: Item) -> AsyncIterator[str]:
        """A text in pieces. Raises as `run`; BadInput for an input that cannot be used."""
        stream = Stream(operation, item, asyncio.get_running_loop())
        with self.changed:
            self._require_running()
            self.streams.append(stream)
            self.changed.notify()
        try:
            while (piece := await stream.pieces.get()) is not _END:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            stream.left = True

    def stop(self, seconds: float) -> None:
        """Take no more work, and wait until what was taken is done, at most so long."""
        with self.changed:
            self.stopping = True
            self.changed.notify()
        self.thread.join(seconds)

    def _add(self, jobs: Sequence[Job]) -> None:
        cost = sum(job.cost for job in jobs)
        with self.changed:
            self._require_running()
            if self.jobs and self.tokens + cost > WAITING_BATCHES * self.max_batch_tokens:
                raise Overloaded(
                    f"{len(self.jobs):,} inputs wait already; try again later",
                    self.tokens / self.tokens_per_second,
                )
            self.jobs.extend(jobs)
            self.tokens += cost
            self.metrics.queue_size.set(len(self.jobs))
            self.changed.notify()

    def _require_running(self) -> None:
        if self.stopping:
            raise Unavailable("the service stops; ask another one")

    def _run(self) -> None:
        try:
            self._serve()
        finally:  # nobody waits for an engine that has ended, whatever ended it
            with self.changed:
                self.stopping = True
                for job in self.jobs:
                    job.future.cancel()
                for stream in self.streams:
                    stream.give(Unavailable("the model has stopped"))

    def _serve(self) -> None:
        # Entered once: streams that end in another order than they began must not restore each
        # other's modes.
        with evaluating(self.model):
            while True:
                with self.changed:
                    self.changed.wait_for(lambda: self.jobs or self.streams or self.stopping)
                    if not (self.jobs or self.streams):
                        return
                    batch = self._next_batch()
                groups: dict[Operation, list[Job]] = {}
                for job in batch:
                    groups.setdefault(job.operation, []).append(job)
                for operation, jobs in groups.items():
                    self._answer(operation, jobs)
                for stream in list(self.streams):
                    self._write_on(stream)

    def _next_batch(self) -> list[Job]:
        """The jobs that came first, at least one."""
        batch: list[Job] = []
        tokens = 0
        while self.jobs and (not batch or tokens + self.jobs[0].cost <= self.max_batch_tokens):
            job = self.jobs.popleft()
            self.tokens -= job.cost
            if job.future.set_running_or_notify_cancel():
                tokens += job.cost
                batch.append(job)
        self.metrics.queue_size.set(len(self.jobs))
        self.metrics.batch_size.set(len(batch))
        self.metrics.batch_tokens.set(tokens)
        return batch

    def _answer(self, operation: Operation, jobs: Sequence[Job]) -> None:
        begun = time.perf_counter()
        for job in jobs:
            job.started = begun
        self.metrics.batch_count.inc()
        try:
            results = operation.run([job.item for job in jobs], self.max_batch_tokens)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].ended = time.perf_counter()
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # one that fails must not cost the others their answers
                self._answer(operation, [job])
            return
        ended = time.perf_counter()
        seconds = ended - begun
        self.metrics.batch_success.inc()
        self.metrics.batch_duration.observe(seconds)
        rate = sum(job.cost for job in jobs) / max(seconds, 1e-6)
        self.tokens_per_second += 0.1 * (rate - self.tokens_per_second)
        for job, result in zip(jobs, results, strict=True):
            job.ended = ended
            job.future.set_result(result)

    def _write_on(self, stream: Stream) -> None:
        """One more piece of a stream, so that other work need not wait for its end."""
        try:
            if stream.left:
                piece = _END
            else:
                stream.written = stream.written or iter(stream.operation.stream(stream.item))
                piece = next(stream.written, _END)
        except Exception as error:
            piece = error
        if piece is _END or isinstance(piece, Exception):
            if stream.written is not None:
                stream.written.close()  # ty: ignore[missing-attribute] a generator
            self.streams.remove(stream)
        stream.give(piece)

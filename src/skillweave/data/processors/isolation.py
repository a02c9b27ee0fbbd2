"""Decodes media in a child process, which is stopped when it takes too long or too much memory.

A decoder that loops, crashes or fills the memory then costs one sample, not the run. The child
returns arrays without pickles, so it cannot make this process run anything.
"""

from __future__ import annotations

import io
import os
import pickle
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import numpy as np

from skillweave.config.data import LimitsConfig
from skillweave.data.processors.base import BadInput

START_SECONDS = 120
"""Time that the child has to import what it needs."""

Arrays = list[np.ndarray]

_lock = threading.Lock()
_child: Child | None = None


def call(function: Callable[..., Arrays], *args: Any, limits: LimitsConfig) -> Arrays:
    """`function(*args)` in the child process of this process. All must be picklable.

    Raises BadInput where the function does, and when the child dies or exceeds
    `limits.isolate_seconds` or `limits.isolate_bytes`.
    """
    global _child
    with _lock:
        child = _started(limits)
        try:
            return child.call((function, args), limits.isolate_seconds)
        except ChildError as error:
            child.close()
            _child = None
            raise BadInput(str(error)) from None


def start(limits: LimitsConfig) -> None:
    """Start the child process, so that the first file need not wait for it."""
    with _lock:
        _started(limits)


def _started(limits: LimitsConfig) -> Child:
    global _child
    # a forked data worker needs a child of its own
    if _child is None or (_child.owner, _child.bytes) != (os.getpid(), limits.isolate_bytes):
        if _child is not None:
            _child.close()
        _child = Child(limits.isolate_bytes)
    return _child


class ChildError(Exception):
    """The child is of no more use."""


class Child:
    """A process that runs `serve`. It ends when this process does. `bytes`: memory that it may
    take beyond that of its start."""

    def __init__(self, memory: int) -> None:
        self.owner, self.bytes = os.getpid(), memory
        code = f"from {__name__} import serve; serve({memory})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self._receive(START_SECONDS)

    def call(self, request: Any, seconds: float) -> Arrays:
        """The answer to a request. Raises BadInput, and ChildError when there is no answer."""
        try:
            _send(self.input, pickle.dumps(request))
        except OSError:
            raise self._death() from None
        with np.load(io.BytesIO(self._receive(seconds)), allow_pickle=False) as answer:
            arrays = [answer[name] for name in answer.files]
        if answer.files == ["error"]:
            raise BadInput(str(arrays[0]))
        return arrays

    def close(self) -> None:
        """End the process; only its pipes, if it is another process's child."""
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
        self.output.close()
        with suppress(OSError):  # what was not sent
            self.input.close()

    def _receive(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        length = int.from_bytes(self._read(8, deadline, seconds), "little")
        if length > self.bytes:
            raise ChildError(f"a decoded file of {length} bytes exceeds limits.isolate_bytes")
        return self._read(length, deadline, seconds)

    def _read(self, length: int, deadline: float, seconds: float) -> bytes:
        data, pipe = bytearray(), self.output.fileno()
        while len(data) < length:
            if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ChildError(f"decoding takes more than limits.isolate_seconds {seconds:g}")
            block = os.read(pipe, min(length - len(data), 2**20))
            if not block:
                raise self._death()
            data += block
        return bytes(data)

    def _death(self) -> ChildError:
        return ChildError(f"the decoder died (exit status {self.process.wait()})")


def serve(memory: int) -> None:
    """Answer requests on the standard input until it ends."""
    import resource

    import skillweave.data.processors.image
    import skillweave.data.processors.sound
    import skillweave.data.processors.video  # noqa: F401 so that its memory is not counted

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + memory, used + memory))
    _send(answers, b"")
    while header := sys.stdin.buffer.read(8):
        request = sys.stdin.buffer.read(int.from_bytes(header, "little"))
        _send(answers, _answer(*pickle.loads(request)))


def _answer(function: Callable[..., Arrays], args: tuple[Any, ...]) -> bytes:
    out = io.BytesIO()
    try:
        np.savez(out, *function(*args))
    except (BadInput, MemoryError) as error:
        reason = str(error)
        if isinstance(error, MemoryError) or "MemoryError" in reason:
            reason = "decoding takes more memory than limits.isolate_bytes"
        out = io.BytesIO()
        np.savez(out, error=np.array(reason))
    return out.getvalue()


def _send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(len(data).to_bytes(8, "little") + data)
    pipe.flush()

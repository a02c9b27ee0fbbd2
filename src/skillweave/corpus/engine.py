"""Pieces of work on the processes of Daft: its native runner, or a Ray cluster."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from skillweave.config.base import ConfigError
from skillweave.corpus.plan import Plan
from skillweave.corpus.shards import write_shard
from skillweave.corpus.unit import StepFailed, run_unit
from skillweave.environment import connect_to_ray

Engine = Literal["native", "ray"]
Piece = tuple[str, int, int]
"""What is done (`unit` or `shard`), the number of the stage, and that of the unit or shard."""


def perform(plan: Plan, piece: Piece) -> None:
    """Do a piece of work."""
    what, stage, number = piece
    if what == "unit":
        run_unit(plan, stage, number)
    else:
        write_shard(plan, number)


class Workers:
    """The processes that do the work. `engine`: of Daft. `processes`: how many; 1: this one."""

    def __init__(self, engine: Engine = "native", processes: int = 1) -> None:
        self.engine, self.processes = engine, processes
        os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
        if engine == "ray":
            _start_ray()

    def run(self, plan: Plan, pieces: Sequence[Piece], progress: Callable[[int], None]) -> None:
        """Do all pieces. `progress` is told how many are done. Raises what a piece raises."""
        if not pieces:
            return
        done = 0
        for done, answer in enumerate(self._answers(plan, pieces), 1):
            _raise(answer)
            progress(done)
        if done < len(pieces):  # Daft heard Ctrl-C before Python did, and ended without an error
            raise KeyboardInterrupt

    def _answers(self, plan: Plan, pieces: Sequence[Piece]) -> Iterator[dict[str, Any]]:
        count = min(self.processes, len(pieces))
        if count == 1 and self.engine == "native":
            for piece in pieces:
                perform(plan, piece)
                yield {}
            return
        import daft
        from daft.pickle import dumps

        # the plan is bytes to Daft, which a worker reads once
        worker = daft.cls(max_concurrency=count, use_process=True)(_Worker)(dumps(plan))
        frame = daft.from_pydict({"piece": [json.dumps(piece) for piece in pieces]})
        frame = frame.into_batches(1)  # a process gets a whole batch, and answers after all of it
        answers = frame.select(worker.run(frame["piece"]).alias("answer"))
        for row in answers.iter_rows(results_buffer_size=1):
            yield json.loads(row["answer"])


class _Worker:
    """A process that does pieces of work."""

    def __init__(self, plan: bytes) -> None:
        import pickle

        from skillweave.corpus import BUILT_IN  # registers what the plan names

        del BUILT_IN
        self.plan: Plan = pickle.loads(plan)

    def run(self, piece: str) -> str:
        """Do a piece; what went wrong, as JSON."""
        try:
            perform(self.plan, tuple(json.loads(piece)))
        except Exception as error:
            told = {"kind": type(error).__name__, "message": str(error)}
            if isinstance(error, ConfigError):
                return json.dumps({**told, "kind": "ConfigError"})
            if isinstance(error, OSError):
                return json.dumps({**told, "kind": "OSError", "number": error.errno or 0})
            return json.dumps({**told, "trace": traceback.format_exc()})
        return "{}"


def _raise(answer: dict[str, Any]) -> None:
    """Raise the error of a worker here."""
    if not answer:
        return
    match answer["kind"]:
        case "ConfigError":
            raise ConfigError(answer["message"])
        case "StepFailed":
            raise StepFailed(answer["message"])
        case "OSError":
            raise OSError(answer["number"], answer["message"])
    raise RuntimeError(answer["trace"])


def _start_ray() -> None:
    connect_to_ray("corpus-ray")
    import daft

    if daft.get_or_infer_runner_type() != "ray":
        daft.set_runner_ray(noop_if_initialized=True)

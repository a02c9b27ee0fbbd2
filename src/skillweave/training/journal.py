"""The record of a run: metrics.jsonl, skipped.jsonl, TensorBoard and the screen."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar

from skillweave.analysis.experts import KIND, Use, by_choice, summarise
from skillweave.batch import SkippedSample
from skillweave.training.progress import Display

T = TypeVar("T")
METRICS, SKIPPED = "metrics.jsonl", "skipped.jsonl"
MOMENTUM = 0.95
"""How much of a task's running loss stays when a new one comes."""
RECENT = 50
"""Steps over which the screen's speed is averaged."""


class Journal:
    """Keeps the running numbers of a run and writes them down.

    The numbers are part of a checkpoint (`state`), so that a resumed run writes the same losses as
    an uninterrupted one.
    """

    def __init__(
        self,
        folder: Path | None,
        display: Display,
        log_every: int,
        state: Mapping[str, Any],
        step: int,
    ) -> None:
        """Cut the files of `folder` back to `step`, and go on from `state` (empty for a new run).

        `folder`: None on all processes but the first, which alone writes.
        """
        self.display, self.log_every = display, log_every
        self.running: dict[str, float] = dict(state.get("running", {}))
        self.window: dict[str, list[float]] = {
            task: list(sums) for task, sums in state.get("window", {}).items()
        }
        # samples, seconds, seconds without data
        self.totals: list[float] = list(state.get("totals", [0.0, 0.0, 0.0]))
        self.before = float(state.get("seconds", 0.0))
        self.recent: deque[tuple[int, float, float]] = deque(maxlen=RECENT)
        self.skips: Counter[tuple[str, str]] = Counter()
        self.skipped_keys: set[tuple[str, str]] = set()
        # of experts, by place and layer, at the last validation
        self.shares: dict[tuple[str, int], dict[str, Any]] = {}
        self.files: dict[str, TextIO] = {}
        self.board: Any = None
        if folder:
            for line in truncate(folder / SKIPPED, step):
                self._count(SkippedSample(line["task"], line["key"], line["reason"]))
            for line in truncate(folder / METRICS, step):
                if line["kind"] == KIND:
                    self.shares[line["place"], line["layer"]] = line["shares"]
            self.files = {
                name: (folder / name).open("a", encoding="utf-8") for name in (METRICS, SKIPPED)
            }
            self.board = open_board(folder / "tensorboard", step, display)
        self.began = self.last_step = time.perf_counter()
        self.waited = 0.0

    def __enter__(self) -> Journal:
        self.display.__enter__()
        self.began = self.last_step = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.display.__exit__(*error)
        for file in self.files.values():
            file.close()
        if self.board:
            self.board.close()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, interruptions left out."""
        return self.before + time.perf_counter() - self.began

    @property
    def state(self) -> dict[str, Any]:
        """The running numbers, for the checkpoint."""
        window = {task: list(sums) for task, sums in self.window.items()}
        totals, seconds = list(self.totals), round(self.seconds, 3)
        return {
            "running": dict(self.running),
            "window": window,
            "totals": totals,
            "seconds": seconds,
        }

    def waiting(self, batches: Iterator[T]) -> T:
        """The next batch; the time until it comes counts as waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - start
        return batch

    def skipped(self, step: int, skips: Iterable[SkippedSample]) -> None:
        """List samples that were left out, each once."""
        for skip in skips:
            if self._count(skip):
                self._line(SKIPPED, step=step, task=skip.task, key=skip.key, reason=skip.reason)

    def trained(
        self, step: int, task: str, loss: float, samples: int, rate: float, last: bool
    ) -> None:
        """An update of `samples` samples over all processes with mean `loss` was done at learning
        rate `rate`."""
        self.running[task] = MOMENTUM * self.running.get(task, loss) + (1 - MOMENTUM) * loss
        sums = self.window.setdefault(task, [0.0, 0.0])
        sums[0] += loss
        sums[1] += 1
        self._clock(samples)
        counted, seconds, wait = (sum(column) for column in zip(*self.recent, strict=True))
        self.display.update(step, task, self.running, counted / seconds, wait / seconds)
        if step % self.log_every == 0 or last:
            self._log_window(step, rate)

    def nonfinite(self, step: int, task: str, loss: float, norm: float, keys: list[str]) -> None:
        """A step was left out because its loss or gradient was not finite; `keys` name its
        samples."""
        self._clock(0)
        shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        self.display.warn(
            f"step {step}: loss {loss}, gradient norm {norm}: no update; task {task}, samples"
            f" {shown}"
        )
        values = {"loss": str(loss), "gradient_norm": str(norm), "keys": keys}
        self._line(METRICS, step=step, kind="nonfinite", task=task, **values)

    def validated(
        self, step: int, results: Mapping[str, Mapping[str, float]], value: float, best: bool
    ) -> None:
        """Validation results by task: `loss` and metrics; `value` is the mean of their scores."""
        for task, metrics in results.items():
            metric = {name: number for name, number in metrics.items() if name != "loss"}
            seconds = round(self.seconds, 3)
            line = {
                "kind": "validation",
                "task": task,
                "loss": metrics["loss"],
                "metric": metric,
                "seconds": seconds,
            }
            self._line(METRICS, step=step, **line)
            self._scalars(
                step, {f"validation/{name}/{task}": number for name, number in metrics.items()}
            )
        parts = [
            f"{t} " + " ".join(f"{n} {x:.3f}" for n, x in m.items()) for t, m in results.items()
        ]
        mark = " · best so far" if best else ""
        self.display.note(f"step {step}: validation score {value:.3f}{mark} | " + " · ".join(parts))
        self.last_step = time.perf_counter()

    def interference(
        self, step: int, found: Mapping[str, Mapping[str, Mapping[str, float]]]
    ) -> None:
        """Block → task i → task j → what j's steps are worth to i, as a share of one of its own."""
        for block, tasks in found.items():
            for task, others in tasks.items():
                self._line(
                    METRICS,
                    step=step,
                    kind="interference",
                    task=task,
                    block=block,
                    metric=dict(others),
                )
                self._scalars(
                    step,
                    {
                        f"interference/{block}/{task}/{other}": value
                        for other, value in others.items()
                    },
                )

    def experts(self, step: int, uses: Iterable[Use]) -> None:
        """What learned gates did at a validation, in the figures of `summarise`; drift is measured
        from the validation before."""
        for choice in by_choice(uses):
            place, layer = choice[0].place, choice[0].layer
            figures = summarise(choice, self.shares.get((place, layer), {}))
            self.shares[place, layer] = figures["shares"]
            self._line(METRICS, step=step, kind=KIND, place=place, layer=layer, **figures)
            scalars = {
                f"utilisation/{place}/{layer}/{e}": share
                for e, share in figures["utilisation"].items()
            }
            scalars |= {f"entropy/{place}/{layer}": figures["entropy"]}
            scalars |= {
                f"drift/{place}/{layer}/{task}": value for task, value in figures["drift"].items()
            }
            self._scalars(step, {f"experts/{name}": value for name, value in scalars.items()})

    def summary(self) -> None:
        """How many samples were left out and why."""
        if self.skips:
            parts = [
                f"{count} × {reason} ({task})" for (task, reason), count in self.skips.most_common()
            ]
            count = sum(self.skips.values())
            self.display.note(f"samples skipped: {count}, listed in {SKIPPED}: {'; '.join(parts)}")

    def _count(self, skip: SkippedSample) -> bool:
        if (skip.task, skip.key) in self.skipped_keys:
            return False
        self.skipped_keys.add((skip.task, skip.key))
        self.skips[skip.task, skip.reason] += 1
        return True

    def _clock(self, samples: int) -> None:
        now = time.perf_counter()
        seconds = max(now - self.last_step, 1e-9)
        passed = (samples, seconds, self.waited)
        self.recent.append(passed)
        self.totals = [total + more for total, more in zip(self.totals, passed, strict=True)]
        self.last_step, self.waited = now, 0.0

    def _log_window(self, step: int, rate: float) -> None:
        samples, seconds, waited = self.totals
        pace = {
            "samples_per_second": round(samples / seconds, 3),
            "wait": round(waited / seconds, 4),
        }
        shared = {"learning_rate": rate, **pace, "seconds": round(self.seconds, 3)}
        for task, (total, count) in self.window.items():
            loss = total / count
            self._line(METRICS, step=step, kind="train", task=task, loss=loss, metric={}, **shared)
            self._scalars(step, {f"train/loss/{task}": loss})
        self._scalars(
            step, {f"train/{name}": number for name, number in shared.items() if name != "seconds"}
        )
        self.window, self.totals = {}, [0.0, 0.0, 0.0]

    def _line(self, name: str, **values: Any) -> None:
        if file := self.files.get(name):
            file.write(json.dumps(finite(values), ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)


def finite(value: Any) -> Any:
    """`value` with None for numbers that JSON has no name for, down into dictionaries."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def truncate(file: Path, step: int) -> list[dict[str, Any]]:
    """Keep the lines of a .jsonl file up to `step` and return them; a line cut short by a crash
    goes."""
    if not file.exists():
        return []
    kept = []
    for text in file.read_text("utf-8").split("\n")[:-1]:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        if line["step"] <= step:
            kept.append(line)
    temporary = file.with_name(file.name + ".partial")
    temporary.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), "utf-8"
    )
    temporary.replace(file)
    return kept


def open_board(folder: Path, step: int, display: Display) -> Any:
    """A TensorBoard writer, or None and a hint when TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # an optional extra
    except ImportError:
        display.note("no TensorBoard log: pip install 'skillweave[track]' for one")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)

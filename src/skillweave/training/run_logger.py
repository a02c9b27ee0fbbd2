"""Logs of a run: metrics.jsonl, skipped.jsonl, trackers such as TensorBoard, and the progress
display."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

from skillweave.analysis.experts import KIND, Use, by_choice, summarise
from skillweave.batch import SkippedSample
from skillweave.reporting.logs import (
    DATA_KIND,
    METRICS_FILE,
    SKIPPED_FILE,
    read_log,
)
from skillweave.storage import write_text
from skillweave.training.checkpoint import TrainingState
from skillweave.training.progress import ProgressDisplay
from skillweave.training.trackers import Tracker

T = TypeVar("T")
STEERING_KIND = "steering_by_"
"""What the kinds of lines on the weights of tasks begin with."""
OF_VALIDATION = ("validation", "not_validated", KIND, f"{STEERING_KIND}validation")
"""Kinds of lines in `metrics.jsonl` that a validation writes."""
MOMENTUM = 0.95
"""Decay of a task's running loss per step of the task."""
SPEED_STEPS = 50
"""Number of steps over which the displayed speed is averaged."""
KEYS_SHOWN = 8
"""Number of sample keys in a warning on the screen."""
KINDS_SHOWN, REASON_SHOWN = 8, 160
"""Number of kinds of skipped samples on the screen, and of characters of a reason."""
PARTICULARS = re.compile(r"""'[^']*'|"[^"]*"|\S*/\S*|\d[\d.,]*""")
"""What differs between the reasons of one kind: names, paths and numbers."""


class Work(NamedTuple):
    """What an update trained on, over all processes: positions without padding, and the
    floating-point operations that they need (6 for each activated parameter, arXiv 2001.08361)."""

    tokens: float
    flops: float


NOTHING = Work(0, 0)


def shorten(keys: Sequence[str]) -> str:
    """The first keys of a list, and how many more there are."""
    more = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
    return ", ".join(keys[:KEYS_SHOWN]) + more


class RunLogger:
    """Accumulates the metrics of a run and writes them to its logs.

    The running values are part of a checkpoint (`state`), so that a resumed run logs the same
    losses as an uninterrupted one.
    """

    def __init__(
        self,
        folder: Path | None,
        display: ProgressDisplay,
        log_every: int,
        state: TrainingState,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        """Continue the logs in `folder` after the step of `state`.

        `folder`: None on all processes except the first, which alone writes logs. `trackers`: get
        the same figures; they are closed with the logs.
        """
        self.display, self.log_every = display, log_every
        self.running: dict[str, float] = state.logger.get("running", {})
        # sum and number of each task's losses since the last log entry
        self.losses: dict[str, list[float]] = state.logger.get("losses", {})
        # samples, seconds, and seconds of waiting for data since the last log entry
        self.totals: list[float] = state.logger.get("totals", [0.0, 0.0, 0.0])
        # sum and number of the steps' imbalances since the last log entry
        self.imbalance: list[float] = state.logger.get("imbalance", [0.0, 0])
        # tokens and floating-point operations since then
        self.work: list[float] = state.logger.get("work", [0.0, 0.0])
        self.earlier_seconds = float(state.logger.get("seconds", 0.0))
        self.recent: deque[tuple[int, float, float]] = deque(maxlen=SPEED_STEPS)
        self.skips: Counter[tuple[str, str]] = Counter()
        self.skipped_keys: set[tuple[str, str]] = set()
        # shares of the experts in the last validation, by part, layer and site
        self.shares: dict[tuple[str, int, str], dict[str, Any]] = {}
        self.files: dict[str, TextIO] = {}
        self.trackers = trackers
        if folder:
            self._open(folder, state.step, state.validated)
        self.began = self.last_step = time.perf_counter()
        self.waited = 0.0

    def _open(self, folder: Path, step: int, validated: int) -> None:
        for line in truncate(folder / SKIPPED_FILE, step, validated):
            self._count(SkippedSample(line["task"], line["key"], line["reason"]))
        for line in truncate(folder / METRICS_FILE, step, validated):
            if line["kind"] == KIND:
                self.shares[line["part"], line["layer"], line["site"]] = line["shares"]
        for name in (METRICS_FILE, SKIPPED_FILE):
            self.files[name] = (folder / name).open(
                "a", encoding="utf-8", errors="backslashreplace"
            )

    def __enter__(self) -> RunLogger:
        self.display.__enter__()
        self.began = self.last_step = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.display.__exit__(*error)
        for file in self.files.values():
            file.close()
        for tracker in self.trackers:
            tracker.close()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without interruptions."""
        return self.earlier_seconds + time.perf_counter() - self.began

    @property
    def state(self) -> dict[str, Any]:
        """The running values, for the checkpoint."""
        return {
            "running": self.running,
            "losses": self.losses,
            "totals": self.totals,
            "imbalance": self.imbalance,
            "work": self.work,
            "seconds": round(self.seconds, 3),
        }

    def time_next(self, batches: Iterator[T]) -> T:
        """The next batch. The time until it is available counts as waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - start
        return batch

    def log_data(self, samples: Mapping[str, int]) -> None:
        """Log the number of training samples of each task, before the first step."""
        self._write(METRICS_FILE, step=0, kind=DATA_KIND, samples=dict(samples))

    def log_skipped(self, step: int, skips: Iterable[SkippedSample]) -> None:
        """Log skipped samples, each of them once."""
        for skip in skips:
            if self._count(skip):
                self._write(
                    SKIPPED_FILE, step=step, task=skip.task, key=skip.key, reason=skip.reason
                )

    def is_due(self, step: int, last: bool) -> bool:
        """Whether a step gets an entry in the logs."""
        return step % self.log_every == 0 or last

    def log_step(
        self,
        step: int,
        losses: Mapping[str, float],
        samples: int,
        rate: float,
        last: bool,
        imbalance: float = 1.0,
        work: Work = NOTHING,
        measured: Mapping[str, float] | None = None,
    ) -> None:
        """Log an update. `losses`: the mean loss of each task that a process trained. `samples`:
        their number over all processes. `rate`: the learning rate. `imbalance`: the work of the
        process that has the most ÷ the mean of all processes. `work`: of this update. `measured`:
        further figures of a step that gets an entry, such as norms."""
        self.imbalance = [self.imbalance[0] + imbalance, self.imbalance[1] + 1]
        self.work = [total + more for total, more in zip(self.work, work, strict=True)]
        for task, loss in losses.items():
            self.running[task] = MOMENTUM * self.running.get(task, loss) + (1 - MOMENTUM) * loss
            sums = self.losses.setdefault(task, [0.0, 0.0])
            sums[0] += loss
            sums[1] += 1
        self._count_time(samples)
        counted, seconds, wait = (sum(column) for column in zip(*self.recent, strict=True))
        self.display.update(
            step, ", ".join(losses), self.running, counted / seconds, wait / seconds
        )
        if self.is_due(step, last):
            self._log_losses(step, rate, measured or {})

    def log_nonfinite(
        self, step: int, task: str, loss: float, norm: float, keys: list[str]
    ) -> None:
        """Log a step without an update, because its loss or gradient was not finite. `keys`: its
        samples."""
        self._count_time(0)
        self.display.warn(
            f"step {step}: loss {loss}, gradient norm {norm}: no update; task {task}, samples"
            f" {shorten(keys)}"
        )
        values = {"loss": str(loss), "gradient_norm": str(norm), "keys": keys}
        self._write(METRICS_FILE, step=step, kind="nonfinite", task=task, **values)

    def log_spike(
        self,
        step: int,
        losses: Mapping[str, float],
        averages: Mapping[str, Sequence[float]],
        checkpoint: Path | None,
    ) -> None:
        """Log a step without an update, because the losses of tasks were far above the earlier
        ones. `averages`: of each task, number, mean and variance of its losses. `checkpoint`: the
        one that training returned to, if any."""
        self._count_time(0)
        for task, loss in losses.items():
            _, mean, variance = averages[task]
            away = f"loss {loss:.4g} of {task}, usually {mean:.4g} ± {math.sqrt(variance):.2g}"
            then = f"; weights of {checkpoint}" if checkpoint else ""
            self.display.warn(f"step {step}: {away}: no update{then}")
            line = {"loss": loss, "mean": mean, "deviation": math.sqrt(variance)}
            back = str(checkpoint) if checkpoint else None
            self._write(METRICS_FILE, step=step, kind="spike", task=task, back_to=back, **line)

    def log_validation(
        self, step: int, results: Mapping[str, Mapping[str, float]], value: float, best: bool
    ) -> None:
        """Log the `loss` and the metrics of each task. `value`: mean of the tasks' scores.
        `best`: whether it is the best so far."""
        for task, metrics in results.items():
            others = {name: number for name, number in metrics.items() if name != "loss"}
            line = {"loss": metrics["loss"], "metric": others, "seconds": round(self.seconds, 3)}
            self._write(METRICS_FILE, step=step, kind="validation", task=task, **line)
            self._scalars(step, {f"validation/{name}/{task}": x for name, x in metrics.items()})
        parts = [
            f"{task} " + " ".join(f"{name} {x:.3f}" for name, x in metrics.items())
            for task, metrics in results.items()
        ]
        mark = " · best so far" if best else ""
        self.display.note(f"step {step}: validation score {value:.3f}{mark} | " + " · ".join(parts))
        self.last_step = time.perf_counter()

    def log_failures(self, step: int, failures: Mapping[str, str]) -> None:
        """Log the tasks that could not be validated, each with the reason."""
        for task, reason in failures.items():
            self.display.warn(f"step {step}: task {task} is not validated: {reason}")
            self._write(METRICS_FILE, step=step, kind="not_validated", task=task, reason=reason)

    def log_interference(
        self, step: int, found: Mapping[str, Mapping[str, Mapping[str, float]]]
    ) -> None:
        """Log block → task i → task j → the effect of a step of j on the loss of i, relative to a
        step of i itself."""
        for block, tasks in found.items():
            for task, others in tasks.items():
                line = {"task": task, "block": block, "metric": dict(others)}
                self._write(METRICS_FILE, step=step, kind="interference", **line)
                name = f"interference/{block}/{task}"
                self._scalars(step, {f"{name}/{other}": x for other, x in others.items()})

    def log_steering(self, step: int, by: str, first: int, factors: Mapping[str, float]) -> None:
        """Log a change of the weights of the tasks: from step `first` on they are multiplied by the
        factors."""
        self._write(
            METRICS_FILE, step=step, kind=STEERING_KIND + by, first=first, metric=dict(factors)
        )
        self._scalars(step, {f"steering/{task}": factor for task, factor in factors.items()})
        told = " · ".join(f"{task} × {factor:.2f}" for task, factor in factors.items())
        self.display.note(f"step {step}: weights from step {first + 1} on: {told}")

    def log_experts(self, step: int, uses: Iterable[Use]) -> None:
        """Log how learned gates used the experts in a validation, as computed by `summarise`. Drift
        is relative to the previous validation."""
        for choice in by_choice(uses):
            part, layer, site = key = choice[0][:3]
            summary = summarise(choice, self.shares.get(key, {}))
            self.shares[key] = summary["shares"]
            line = {"part": part, "layer": layer, "site": site, **summary}
            self._write(METRICS_FILE, step=step, kind=KIND, **line)
            scalars = {f"experts/entropy/{part}/{site}/{layer}": summary["entropy"]}
            for kind in ("utilisation", "drift"):
                name = f"experts/{kind}/{part}/{site}/{layer}"
                scalars |= {f"{name}/{key}": value for key, value in summary[kind].items()}
            self._scalars(step, scalars)

    def print_skipped(self) -> None:
        """Print the number of skipped samples by reason and task."""
        if self.skips:
            kinds: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
            for (task, reason), count in self.skips.items():
                kinds[task, PARTICULARS.sub("…", reason)][reason] += count
            told = [f"samples skipped: {self.skips.total()}, listed in {SKIPPED_FILE}"]
            common = sorted(kinds.items(), key=lambda kind: -kind[1].total())
            for (task, kind), reasons in common[:KINDS_SHOWN]:
                reason = kind if len(reasons) > 1 else next(iter(reasons))
                told.append(f"  {reasons.total()} × {reason[:REASON_SHOWN]} ({task})")
            if len(common) > KINDS_SHOWN:
                told.append(f"  and {len(common) - KINDS_SHOWN} other reasons")
            self.display.note("\n".join(told))

    def _count(self, skip: SkippedSample) -> bool:
        """Count a skipped sample. Returns False if it was counted before."""
        if (skip.task, skip.key) in self.skipped_keys:
            return False
        self.skipped_keys.add((skip.task, skip.key))
        self.skips[skip.task, skip.reason] += 1
        return True

    def _count_time(self, samples: int) -> None:
        now = time.perf_counter()
        step = samples, max(now - self.last_step, 1e-9), self.waited
        self.recent.append(step)
        self.totals = [total + more for total, more in zip(self.totals, step, strict=True)]
        self.last_step, self.waited = now, 0.0

    def _log_losses(self, step: int, rate: float, measured: Mapping[str, float]) -> None:
        samples, seconds, waited = self.totals
        tokens, flops = self.work
        shared = {
            "learning_rate": rate,
            "samples_per_second": round(samples / seconds, 3),
            "wait": round(waited / seconds, 4),
            "imbalance": round(self.imbalance[0] / max(self.imbalance[1], 1), 4),
        }
        if tokens:
            shared["tokens_per_second"] = round(tokens / seconds, 1)
            shared["teraflops"] = float(f"{flops / seconds / 1e12:.4g}")
        shared |= measured
        self._scalars(step, {f"train/{name}": number for name, number in shared.items()})
        shared["seconds"] = round(self.seconds, 3)
        for task, (total, count) in self.losses.items():
            loss = total / count
            self._write(
                METRICS_FILE, step=step, kind="train", task=task, loss=loss, metric={}, **shared
            )
            self._scalars(step, {f"train/loss/{task}": loss})
        self.losses, self.totals, self.imbalance = {}, [0.0, 0.0, 0.0], [0.0, 0]
        self.work = [0.0, 0.0]

    def _write(self, name: str, **values: Any) -> None:
        if file := self.files.get(name):
            file.write(json.dumps(to_json(values), ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(step, values)


def to_json(value: Any) -> Any:
    """`value`, with None for numbers that JSON cannot represent. Dictionaries are searched."""
    if isinstance(value, dict):
        return {name: to_json(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def truncate(file: Path, step: int, validated: int) -> list[dict[str, Any]]:
    """Remove the lines of a .jsonl file after `step`, those of validations after `validated`, and
    damaged ones. Returns the remaining lines."""
    kept = [
        line
        for line in read_log(file)
        if step and line["step"] <= (validated if line.get("kind") in OF_VALIDATION else step)
    ]
    if file.exists():
        write_text(file, "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in kept))
    return kept

"""A search over settings of a recipe with Optuna: one run for each trial."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from skillweave.config import ConfigError
from skillweave.config.reading import parse_yaml
from skillweave.recipe import RecipeConfig
from skillweave.storage import lock
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.errors import TrainingError
from skillweave.training.run import train

if TYPE_CHECKING:
    from optuna import Study, Trial

JOURNAL_FILE = "sweep.log"
"""Optuna's journal of the trials, in the folder of the sweep."""
RANGE = re.compile(r"\s*([^\s:]+?)\s*\.\.\s*([^\s:]+?)\s*(:\s*log)?\s*")


@dataclass(frozen=True)
class Varied:
    """A setting that trials vary: from `low` to `high`, if `log` with equal ratios, or one of
    `choices`."""

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Varied:
        """`KEY=1e-5..1e-3`, `KEY=1e-5..1e-3:log`, `KEY=2..8` (whole numbers) or `KEY=[a, b]`.
        Raises ConfigError for anything else."""
        key, separator, given = text.partition("=")
        wrong = ConfigError(
            f"--vary {text}: write KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=[A, B, ...], such as"
            " training.optimizer.learning_rate=1e-5..1e-3:log"
        )
        if not separator or not key.strip():
            raise wrong
        if match := RANGE.fullmatch(given):
            low, high = (_number(part, wrong) for part in match.groups()[:2])
            if not low < high or (match[3] and low <= 0):
                raise wrong
            return cls(key.strip(), low, high, bool(match[3]))
        values = parse_yaml(given, f"--vary {text}")
        if not isinstance(values, list) or len(values) < 2:
            raise wrong
        return cls(key.strip(), choices=tuple(values))

    @property
    def first(self) -> Any:
        """One of its values."""
        return self.choices[0] if self.choices else self.low

    def suggest(self, trial: Trial) -> Any:
        """A value for a trial."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)


def _number(text: str, wrong: ConfigError) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        raise wrong from None
    if not math.isfinite(value):
        raise wrong
    return value


@dataclass(frozen=True)
class TrialResult:
    """A trial: its `state` (`complete` or `fail`), the value that is maximised, the settings, the
    run folder, and why it failed."""

    number: int
    state: str
    value: float | None
    settings: Mapping[str, Any]
    folder: str
    reason: str = ""


class Trained(NamedTuple):
    """How a trial ended: with the best mean of scores in a validation (None if there was no
    validation), or the `reason` why it failed."""

    value: float | None
    reason: str = ""


def run_trial(recipe: RecipeConfig) -> Trained:
    """Train a trial, or continue it. An interruption leaves it unfinished."""
    try:
        train(recipe, resume=bool(Checkpoints(recipe.folder).steps()), quiet=True)
    except (ConfigError, TrainingError) as error:
        return Trained(None, str(error))
    return Trained(TrainingState.read(recipe.folder / "last").best_value)


def run_here(recipe: RecipeConfig) -> Future[Trained]:
    """Train a trial in this process, to its end."""
    done: Future[Trained] = Future()
    done.set_result(run_trial(recipe))
    return done


def sweep(
    read: Callable[[Sequence[str]], RecipeConfig],
    varied: Sequence[Varied],
    folder: Path,
    trials: int,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    start: Callable[[RecipeConfig], Future[Trained]] = run_here,
    at_once: int = 1,
) -> list[TrialResult]:
    """Train until there are `trials` trials, each with settings that Optuna's TPE sampler chooses,
    and return all of them.

    `read`: the recipe with settings `KEY=VALUE`. What is maximised is the best mean of the tasks'
    scores in a validation. The same call continues a sweep: a trial that was interrupted resumes
    from its checkpoint. A trial that cannot be trained counts as failed. `start`: starts a trial;
    `at_once` of them run at a time. Raises ConfigError without Optuna, for another search in the
    same folder, and for settings that the recipe does not have.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("a sweep needs Optuna; run pip install 'skillweave[sweep]'") from None
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    if not varied:
        raise ConfigError("a sweep varies settings; give at least one --vary KEY=LOW..HIGH")
    read([f"{one.key}={_yaml(one.first)}" for one in varied])  # wrong keys are told at once
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL_FILE)))
        study = optuna.create_study(
            storage=storage, study_name="sweep", direction="maximize", load_if_exists=True
        )
        # a sampler that begins anew must not draw the same settings again
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials()))
        _require_same(study, varied)
        for stale in study.get_trials(states=(TrialState.RUNNING,)):
            if stale.params:
                attributes = {"folder": stale.user_attrs.get("folder", "")}
                study.enqueue_trial(stale.params, user_attrs=attributes)
            study.tell(stale.number, state=TrialState.FAIL)
        running: dict[Future[Trained], Trial] = {}
        while (done := len(_finished(study))) < trials:
            if progress:
                progress("trials", done, trials)
            while len(running) < min(at_once, trials - done):
                trial = study.ask()
                running[start(_recipe_of(trial, read, varied, folder))] = trial
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                _tell(study, running.pop(ended), ended.result())
        if progress:
            progress("trials", trials, trials)
        return results(study)


def _require_same(study: Study, varied: Sequence[Varied]) -> None:
    """Raise ConfigError where the sweep in the folder varied something else."""
    described = repr(sorted(varied, key=lambda one: one.key))
    before = study.user_attrs.get("varied")
    if before not in (None, described):
        raise ConfigError(
            f"the sweep in this folder varied something else: {before}; give another --out"
        )
    study.set_user_attr("varied", described)


def _finished(study: Study) -> list[Any]:
    """The trials that have an end of their own: complete, or told why they failed."""
    return [t for t in study.get_trials() if t.value is not None or t.user_attrs.get("reason")]


def _recipe_of(
    trial: Trial,
    read: Callable[[Sequence[str]], RecipeConfig],
    varied: Sequence[Varied],
    folder: Path,
) -> RecipeConfig:
    """The recipe of a trial. A wrong setting ends the sweep."""
    settings = [f"{one.key}={_yaml(one.suggest(trial))}" for one in varied]
    own = trial.user_attrs.get("folder") or str(folder / f"trial-{trial.number:04d}")
    trial.set_user_attr("folder", own)
    return read([*settings, f"output={own}"])


def _tell(study: Study, trial: Trial, found: Trained) -> None:
    """Store how a trial ended."""
    from optuna.trial import TrialState

    if found.reason:
        trial.set_user_attr("reason", found.reason)
        study.tell(trial, state=TrialState.FAIL)
        return
    if found.value is None:
        raise ConfigError(
            f"{trial.user_attrs['folder']}: no task was validated, so trials cannot be compared;"
            " give the tasks validation data"
        )
    study.tell(trial, found.value)


def _yaml(value: Any) -> str:
    # YAML reads 1e-05 as a text
    return f"{value:.17f}".rstrip("0") + "0" if isinstance(value, float) else json.dumps(value)


def results(study: Study) -> list[TrialResult]:
    """The finished trials, the best first."""
    found = [
        TrialResult(
            t.number,
            t.state.name.lower(),
            t.value,
            dict(t.params),
            t.user_attrs.get("folder", ""),
            t.user_attrs.get("reason", ""),
        )
        for t in _finished(study)
    ]
    return sorted(found, key=lambda one: (one.value is None, -(one.value or 0.0), one.number))

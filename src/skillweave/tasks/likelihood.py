"""Classes and choices by likelihood: which candidate the model would most probably write in a
template (GPT-3; M6 section 4.1.2).

Shape letters: N samples, C candidates, R draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Example
from skillweave.config.task import TaskSettings
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput
from skillweave.data.values import class_index
from skillweave.generation import score_candidates, shared_beginning
from skillweave.metrics import Columns, mean
from skillweave.model.model import Model
from skillweave.tasks.cases import CASES, SHOWN, Case, Confusion, Item
from skillweave.tasks.classification import Classification, ClassPredictions, TextClassification
from skillweave.tasks.predictions import Predictions, on_device, stack
from skillweave.tasks.prompted import TEXT, Prompt, Prompted, begun, prompted_example
from skillweave.tasks.task import (
    ANSWER,
    Baseline,
    Figures,
    MeasuredData,
    Mode,
    ResolvedTask,
    Row,
    TaskContext,
    register,
)


@dataclass(frozen=True)
class Candidates:
    """What is scored for a sample.

    `beginning`: tokens of the last span that all texts share. `texts`: the tokens of each candidate
    after it. `unscored`: how many of these do not count. `characters`: how many stand from the
    candidate on. `numbers`: which of the sample's `count` candidates they are. `draws`: places here
    of candidates that compete with each other, the right one first. `empty`: the same candidates
    after a template without values.
    """

    beginning: Sequence[int]
    texts: Sequence[Sequence[int]]
    unscored: Sequence[int]
    characters: Sequence[int]
    numbers: Sequence[int] = ()
    count: int = 0
    draws: Sequence[Sequence[int]] = ()
    empty: Example | None = None


@dataclass(kw_only=True)
class ScoredClasses(ClassPredictions):
    """`right`: [N] the share of draws in which the right class won; None without draws. `ways`:
    candidates of a draw. `cut`: samples that had fewer worked examples than asked for."""

    right: NDArray[np.float64] | None = None
    ways: int = 0
    cut: int = 0


@dataclass(frozen=True, kw_only=True)
class Likelihood(Prompted, Classification):
    """The class whose text is the most likely one."""

    inputs: Any = field(default=None, init=False, repr=False)

    def names(self, row: Row, settings: TaskSettings) -> list[str]:
        """The texts of the candidates of a row."""
        return list(settings.classes.values())

    def right(self, row: Row, names: Sequence[str], settings: TaskSettings) -> int:
        """The number of the right one. Raises BadInput where there is none."""
        return class_index(row["label"], list(settings.classes))

    def worked_example(self, row: Row, settings: TaskSettings) -> tuple[str, str]:
        """See `Task`."""
        names = self.names(row, settings)
        number = self.right(row, names, settings)
        text = self._worked(row, settings, names[number])
        return (list(settings.classes)[number] if settings.classes else ""), text

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """The text with the right answer, and beside it all that is scored."""
        settings = context.settings
        names = self.names(row, settings)
        if len(names) < 2:
            raise BadInput(f"{len(names)} candidates; give at least two to choose from")
        label = self.right(row, names, settings) if context.labelled else 0
        numbers, draws = [label], []
        if not context.training:
            numbers, draws = _competitors(len(names), label, context, rng)
        shown = [names[i] for i in numbers]
        prompt = self.prompt_of(row, context, shown)
        scored = self._scored(prompt, shown, context)
        scored = replace(scored, numbers=numbers, count=len(names), draws=draws)
        if settings.prompting.normalization == "pmi" and not context.training:
            scored = replace(scored, empty=self._empty(prompt, row, shown, context))
        own = self.answered(prompt, names[label], context)
        if not context.labelled:
            own = own._replace(start=len(scored.beginning))
        asked = len(settings.prompting.examples)
        metadata = {"candidates": scored, "examples": (prompt.examples, asked)}
        found = prompted_example(prompt, own, row, context, self.decodes, **metadata)
        return replace(found, labels={"class": label} if context.labelled else {})

    def _scored(self, prompt: Prompt, names: Sequence[str], context: TaskContext) -> Candidates:
        whole = context.settings.prompting.normalization == "text"
        texts = [self.answered(prompt, name, context) for name in names]
        starts = [len(prompt.begin) if whole else one.start for one in texts]
        shared = shared_beginning([one.ids for one in texts], min(starts))
        return Candidates(
            beginning=texts[0].ids[:shared],
            texts=[one.ids[shared:] for one in texts],
            unscored=[start - shared for start in starts],
            characters=[len(name) + len(prompt.tail) for name in names],
        )

    def _empty(
        self, prompt: Prompt, row: Row, names: Sequence[str], context: TaskContext
    ) -> Example:
        """The candidates after the same worked examples and a template without values."""
        values = dict.fromkeys(self.values(row, context.settings), "")
        bare = self.built(values, prompt.examples, context)
        scored = self._scored(bare, names, context)
        own = self.answered(bare, names[0], context)._replace(start=len(scored.beginning))
        metadata = {"candidates": scored, "key": (prompt.examples, *names)}
        unlabelled = replace(context, mode=Mode.PREDICTION)
        return prompted_example(bare, own, row, unlabelled, self.decodes, **metadata)

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> ScoredClasses:
        """The candidates' shares of likelihood."""
        scorer, seen = _Scorer(model, task), Predictions()
        labels, found, scores, cut = [], [], [], 0
        for batch in on_device(model, batches, seen):
            if "class" in batch.labels:
                labels.append(batch.labels["class"].cpu())
            cut += sum(used < asked for used, asked in (m["examples"] for m in batch.metadata))
            found += (own := [about["candidates"] for about in batch.metadata])
            scores += scorer(batch, own)
        probabilities = np.zeros((len(found), max(one.count for one in found)), np.float32)
        for row, one, score_C in zip(probabilities, found, scores, strict=True):
            row[list(one.numbers)] = score_C.softmax(0).numpy()
        pairs = [(one, score_C) for one, score_C in zip(found, scores, strict=True) if one.draws]
        return ScoredClasses(
            labels=stack(labels),
            probabilities=probabilities,
            choices=np.array([one.count for one in found]),
            right=np.array([_share_won(*pair) for pair in pairs]) if pairs else None,
            ways=max((len(one.draws[0]) for one, _ in pairs), default=0),
            cut=cut,
            **vars(seen),
        )

    def columns(self, found: Predictions) -> Columns:
        """Accuracy, the mean over draws of negatives where there are some."""
        right = cast(ScoredClasses, found).right
        return super().columns(found) if right is None else {"accuracy": (mean, [right])}

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Any candidate of a draw; without draws see `Classification`."""
        ways = cast(ScoredClasses, found).ways
        return {"accuracy": 1 / ways} if ways else super().chance(found, data)

    def remarks(self, found: Predictions) -> list[str]:
        """Also of worked examples that had no room, and of negatives."""
        found, told = cast(ScoredClasses, found), []
        if found.cut:
            told.append(
                f"{found.cut:,} of {len(found.keys):,} samples had room for fewer worked examples"
                " than prompting.shots asks for; set prompting.max_characters, or lower shots"
            )
        if found.ways:
            told.append(f"the right class competes with {found.ways - 1} others, drawn at random")
        return [*super().remarks(found), *told]

    def confusion(self, found: Predictions, data: MeasuredData) -> Confusion | None:
        """None where each sample has other classes."""
        return None if cast(ScoredClasses, found).ways else super().confusion(found, data)

    def cases(self, found: Predictions, data: MeasuredData) -> list[Case]:
        """The first samples with their most probable candidates."""
        found, settings, cases = cast(ScoredClasses, found), data.task.settings, []
        for i, key in enumerate(found.keys[:CASES]):
            row = data.row(key)
            names = self.names(row, settings)
            shares = found.probabilities[i][: len(names)]
            order = np.argsort(-shares, kind="stable")[:SHOWN]
            shown = Item("text", str(row[self.given[0]]))
            classes = [(names[c], float(shares[c])) for c in order]
            cases.append(Case(shown, label=names[found.labels[i]], classes=classes))
        return cases


@dataclass(frozen=True, kw_only=True)
class PerplexityClassification(Likelihood, TextClassification):
    """The class of a text, among class names in a template."""

    names_classes: ClassVar[bool] = True

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """See `TextClassification`; None where negatives are drawn."""
        if cast(ScoredClasses, found).ways:
            return None
        return TextClassification.baseline(self, found, data)


class _Scorer:
    """Scores the candidates of batches as `prompting.normalization` says."""

    def __init__(self, model: Model, task: ResolvedTask) -> None:
        self.model, self.task = model, task
        self.resolved = model.resolve(task.name)
        self.normalization = task.settings.prompting.normalization
        self.empty: dict[Any, Tensor] = {}
        """Log-likelihoods after a template without values, by candidates."""

    def __call__(self, batch: Any, candidates: Sequence[Candidates]) -> list[Tensor]:
        """The score [C] of each candidate of each sample."""
        sums, counts = self._sums(batch, candidates)
        match self.normalization:
            case "token" | "text":
                return [a / b for a, b in zip(sums, counts, strict=True)]
            case "character":
                sizes = (torch.tensor(one.characters) for one in candidates)
                return [a / b for a, b in zip(sums, sizes, strict=True)]
            case "pmi":
                return [a - self._empty(c) for a, c in zip(sums, candidates, strict=True)]
        return sums

    def _sums(
        self, batch: Any, candidates: Sequence[Candidates]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of each sample the log-likelihoods [C] of the candidates, and their tokens [C]."""
        start = begun(batch, [one.beginning for one in candidates])
        texts = [one.texts for one in candidates]
        found = score_candidates(self.model, start, texts, self.resolved)
        counted = [
            [score_L[skip:] for score_L, skip in zip(row, one.unscored, strict=True)]
            for row, one in zip(found, candidates, strict=True)
        ]
        sums = [torch.stack([score_L.sum() for score_L in row]) for row in counted]
        return sums, [torch.tensor([len(score_L) for score_L in row]) for row in counted]

    def _empty(self, candidates: Candidates) -> Tensor:
        example = cast(Example, candidates.empty)
        key = example.metadata["key"]
        if key not in self.empty:
            model = self.task.model
            layout, answers = self.task.input_layout, model.target_embedding
            batch = collate(layout, [example], model.streams, 1, answers=answers)
            device = next(self.model.parameters()).device
            (sums,), _ = self._sums(batch.to(device), [example.metadata["candidates"]])
            self.empty[key] = sums
        return self.empty[key]


def _competitors(
    count: int, label: int, context: TaskContext, rng: np.random.Generator
) -> tuple[list[int], list[list[int]]]:
    """The candidates that are scored, and the places among them of each draw."""
    prompting = context.settings.prompting
    most = prompting.negatives
    if most is None or most >= count - 1 or not context.labelled:
        return list(range(count)), []
    seed = [int(rng.integers(2**32)), prompting.seed]
    drawing = np.random.default_rng(seed)
    others = np.delete(np.arange(count), label)
    drawn = [drawing.choice(others, most, replace=False).tolist() for _ in range(prompting.repeats)]
    numbers = sorted({label, *(number for draw in drawn for number in draw)})
    places = {number: place for place, number in enumerate(numbers)}
    return numbers, [[places[number] for number in (label, *draw)] for draw in drawn]


def _share_won(found: Candidates, score_C: Tensor) -> float:
    """The share of draws in which the right candidate, their first, has a higher score than each
    other."""
    won = [bool((score_C[draw[0]] > score_C[draw[1:]]).all()) for draw in map(list, found.draws)]
    return sum(won) / len(won)


register(
    PerplexityClassification(
        name="perplexity_classification",
        summary="which category a text belongs to, by how likely its name is in a template (M6)",
        spans=(TEXT, ANSWER),
        targets=("lm",),
        fields=("label",),
        slot="label",
        prompt="{text} {label}",
    )
)

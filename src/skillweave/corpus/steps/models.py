"""Steps that ask a trained model of skillweave: quality, aesthetics, relevance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from skillweave.config.base import ConfigError, nearest
from skillweave.corpus.step import STEPS, Drop, Result, Row, Step

if TYPE_CHECKING:
    from skillweave.inference import Predictor

BATCH = 32
"""Texts that a model reads at once."""
PAD = 8
"""Lengths are padded to a multiple of it."""


class ModelStep(Step):
    """A step with a saved model."""

    model: str
    """A run, a checkpoint, a model folder or the id of a model on the hub."""
    task: str
    """The task of the model."""
    device: str = "auto"
    """Where the model runs: cpu, cuda, mps, or auto for the first that there is."""

    @cached_property
    def predictor(self) -> Predictor:
        """The model, loaded when it is first needed. Raises ConfigError for none."""
        from skillweave.inference import Predictor

        return Predictor(self.model, [self.task], self.device)


@STEPS.register("classifier")
class Classifier(ModelStep):
    """Score a text or a picture with a classifier or a regression model: quality, topic, safety,
    aesthetics; and drop rows with a low score."""

    kind: Literal["classifier"] = "classifier"
    field: Literal["text", "image"] = "text"
    """What the model is given."""
    label: str | None = None
    """The class whose probability is the score. null: the score of a regression model."""
    least: float | None = None
    """The smallest score. null: no limit."""
    writes: ClassVar[Mapping[str, str]] = {"score": "float32"}

    def prepare(self) -> None:
        """Raise ConfigError for a model without this task or class."""
        classes = getattr(self.predictor.answering(self.task), "classes", None)
        if self.label is not None and classes and self.label not in classes:
            raise ConfigError(
                f"{self.title}: label: no class {self.label!r}{nearest(self.label, classes)}"
            )

    def run(self, rows: Sequence[Row]) -> Iterable[Result]:
        """The score of each row."""
        given = [i for i, row in enumerate(rows) if row.get(self.field) is not None]
        results: list[Result] = [None] * len(rows)
        if given:
            answers = self.predictor.predict(self.task, [rows[i][self.field] for i in given])
            for i, answer in zip(given, answers, strict=True):
                results[i] = self._judge(answer)
        return results

    def _judge(self, answer: dict[str, Any]) -> Result:
        if "error" in answer:
            return Drop("the model cannot read it", str(answer["error"]))
        if self.label is None:
            value = answer.get("score")
        else:
            value = answer.get("probabilities", {}).get(self.label)
        if value is None:
            raise ConfigError(
                f"{self.title}: task {self.task!r} gives {', '.join(answer)}; name a class as"
                " `label`, or use a regression model"
            )
        if self.least is not None and value < self.least:
            return Drop(f"{self.label or 'score'} under {self.least:g}", f"{value:.3f}")
        return {"score": float(value)}


@STEPS.register("relevance")
class Relevance(ModelStep):
    """Drop pairs whose picture and text do not belong together: the cosine of their vectors under a
    retrieval model."""

    kind: Literal["relevance"] = "relevance"
    reads: ClassVar[tuple[str, ...]] = ("image", "text")
    writes: ClassVar[Mapping[str, str]] = {"relevance": "float32"}
    least: Annotated[float, Field(ge=-1, le=1)] = 0.2
    """The smallest cosine."""

    def prepare(self) -> None:
        """Raise ConfigError for a model that does not encode pictures and texts."""
        self.predictor.encode(self.task, text=["a"])

    def run(self, rows: Sequence[Row]) -> Iterable[Result]:
        """The relevance of each pair."""
        given = [i for i, row in enumerate(rows) if all(row.get(f) is not None for f in self.reads)]
        results: list[Result] = [None] * len(rows)
        encode = self.predictor.encode_each
        texts = encode(self.task, "text", [rows[i]["text"] for i in given])
        images = encode(self.task, "image", [rows[i]["image"] for i in given])
        for i, text, image in zip(given, texts, images, strict=True):
            if isinstance(text, Exception) or isinstance(image, Exception):
                broken = text if isinstance(text, Exception) else image
                results[i] = Drop("the model cannot read it", str(broken))
                continue
            cosine = float(text @ image)
            low = cosine < self.least
            results[i] = (
                Drop(f"relevance under {self.least:g}", f"{cosine:.3f}")
                if low
                else {"relevance": cosine}
            )
        return results


@STEPS.register("model_perplexity")
class ModelPerplexity(ModelStep):
    """Compute the perplexity of a text under a trained language model, and drop texts above a
    limit. The step `buckets` chooses by rank. A text that is longer than the model reads is judged
    by its beginning."""

    kind: Literal["model_perplexity"] = "model_perplexity"
    writes: ClassVar[Mapping[str, str]] = {"perplexity": "float32"}
    language: str | None = None
    """The language of the texts that the step looks at. null: all."""
    most: Annotated[float, Field(gt=1)] | None = None
    """The largest perplexity of a text. null: no limit."""

    def prepare(self) -> None:
        """Raise ConfigError for a task that does not predict tokens of a text."""
        list(self.run([{"text": "a text", "language": self.language}]))

    def run(self, rows: Sequence[Row]) -> Iterable[Result]:
        """The perplexity of each text."""
        given = [
            i
            for i, row in enumerate(rows)
            if row.get("text") and self.language in (None, row.get("language"))
        ]
        results: list[Result] = [None] * len(rows)
        for start in range(0, len(given), BATCH):
            part = given[start : start + BATCH]
            for i, value in zip(part, self._perplexities([rows[i] for i in part]), strict=True):
                high = self.most is not None and value > self.most
                results[i] = (
                    Drop(f"perplexity over {self.most:g}", f"{value:.0f}")
                    if high
                    else {"perplexity": value}
                )
        return results

    def _perplexities(self, rows: Sequence[Row]) -> list[float]:
        import numpy as np

        from skillweave.data.collate import collate
        from skillweave.tasks.candidates import build_candidates
        from skillweave.tasks.dataset import build_context
        from skillweave.tasks.masked_prediction import MaskedPredictions
        from skillweave.tasks.predictions import encode_candidates, evaluating
        from skillweave.tasks.task import Mode

        model, task = self.predictor.model, self.predictor.task(self.task)
        context = build_context(task, model.assets, Mode.EVALUATION)
        candidates = build_candidates(task, context)
        vectors = encode_candidates(model, candidates.batches()) if candidates else None
        random = np.random.default_rng(0)
        try:
            examples = [
                task.entry.example({"key": str(i), "text": row["text"]}, context, random)
                for i, row in enumerate(rows)
            ]
        except KeyError as error:
            raise ConfigError(
                f"{self.title}: task {self.task!r} also reads {error}; give a task that reads texts"
                " alone, such as language_modelling"
            ) from None
        config = model.config
        batch = collate(task.layout, examples, config.streams, PAD, answers=config.target_embedding)
        with evaluating(model):
            found = task.entry.predict(model, task, [batch], vectors)
        if not isinstance(found, MaskedPredictions):
            raise ConfigError(
                f"{self.title}: task {self.task!r} does not predict the tokens of a text; give one"
                " such as language_modelling"
            )
        losses = np.bincount(found.samples, found.losses, len(rows))
        counts = np.bincount(found.samples, minlength=len(rows))
        return np.exp(losses / np.maximum(counts, 1)).tolist()

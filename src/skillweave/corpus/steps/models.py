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

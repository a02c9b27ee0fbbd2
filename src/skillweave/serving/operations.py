"""What a model is asked to do, in two steps: raw inputs become items, without the model and in any
thread; then the model runs on the items of many requests at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Protocol

from skillweave.batch import Example
from skillweave.inference.generating import open_writer
from skillweave.inference.predictor import Answering, Predictor, count_tokens
from skillweave.inference.writing import DEFAULT_LENGTH
from skillweave.model.model import Resolved

Item = Any
"""An input, ready for the model."""
Result = Any


class Operation(Protocol):
    """One thing that a model does. Items of the same operation share a batch."""

    def prepare(self, value: Any) -> Item:
        """An input as an item. Raises BadInput."""
        ...

    def cost(self, item: Item) -> int:
        """The tokens that the model reads and writes for an item."""
        ...

    def run(self, items: Sequence[Item], max_tokens: int) -> list[Result]:
        """The result of each item."""
        ...


class Encoding:
    """Unit vectors [D] of one modality, as a task encodes it. `resolved`: gives the merged weights
    of a task."""

    def __init__(
        self,
        predictor: Predictor,
        resolved: Callable[[str], Resolved],
        task: str,
        modality: str,
        prompt: str | None = None,
    ) -> None:
        self.predictor, self.resolved, self.task = predictor, resolved, task
        self.layout, self.processor = predictor.encoder(task, modality, prompt)

    def prepare(self, value: Any) -> Example:
        """See `Operation`."""
        return Example((self.processor(value),), {}, "")

    def cost(self, item: Example) -> int:
        """See `Operation`."""
        return count_tokens(item)

    def run(self, items: Sequence[Example], max_tokens: int) -> list[Any]:
        """See `Operation`."""
        resolved = self.resolved(self.task)
        return list(self.predictor.encode_examples(self.layout, items, max_tokens, resolved))


class Answers:
    """Answers of a task: classes, labels, numbers, transcripts."""

    def __init__(self, predictor: Predictor, task: str) -> None:
        self.answering = Answering(predictor, predictor.answering(task))
        self.numbers = count()

    def prepare(self, value: Mapping[str, Any]) -> list[Example]:
        """See `Operation`. The key tells the rows of different requests apart."""
        return self.answering.examples(value, str(next(self.numbers)))

    def cost(self, item: list[Example]) -> int:
        """See `Operation`."""
        return sum(map(count_tokens, item))

    def run(self, items: Sequence[list[Example]], max_tokens: int) -> list[dict[str, Any]]:
        """See `Operation`."""
        examples = [example for item in items for example in item]
        found = self.answering.answers(examples, max_tokens)
        return [found[item[0].key] for item in items]


class Writing:
    """Texts, written with some settings."""

    def __init__(self, predictor: Predictor, task: str | None, settings: Mapping[str, Any]) -> None:
        self.writer = open_writer(predictor, task, settings)

    @property
    def room(self) -> int:
        """Most tokens of an answer, as far as it is known before the input."""
        return self.writer.settings.max_new_tokens or DEFAULT_LENGTH

    def prepare(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Operation`. The writer reads a row itself."""
        return value

    def cost(self, item: Mapping[str, Any]) -> int:
        """See `Operation`."""
        return self.room

    def run(self, items: Sequence[Mapping[str, Any]], max_tokens: int) -> list[Any]:
        """See `Operation`."""
        return list(self.writer.write(items))

    def stream(self, item: Mapping[str, Any]) -> Iterator[str]:
        """The answer in pieces."""
        return self.writer.stream(item)

    def count(self, text: str) -> int:
        """The tokens of a text."""
        return len(self.writer.processor.encode(text).ids) if text else 0

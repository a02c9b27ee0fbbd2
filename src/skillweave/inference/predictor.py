"""One object for every saved model: it answers for raw inputs and encodes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Example, Features, Layout, Modality
from skillweave.config import ConfigError, choose
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput, build_processor
from skillweave.data.values import first_text
from skillweave.display import html_table
from skillweave.inference.inputs import as_rows, check_several
from skillweave.inference.loading import choose_device, load
from skillweave.model.model import Model, Resolved
from skillweave.tasks.candidates import build_candidates
from skillweave.tasks.dataset import build_context
from skillweave.tasks.predictions import encode_candidates, evaluating
from skillweave.tasks.resolve import resolved_task
from skillweave.tasks.task import Mode, ResolvedTask, TaskContext

Answer = dict[str, Any]
Vectors = NDArray[np.float32]
BATCH = 32
"""Inputs that the model sees at once."""
WINDOW = 8
"""Batches of texts that are sorted by length together, so that little is padding."""
PAD_TO_MULTIPLE_OF = 8
"""Lengths are padded to a multiple of it."""


def shortened(vectors_ND: Vectors, dimensions: int) -> Vectors:
    """[N, dimensions] the first components of vectors, with unit length. Raises ConfigError for a
    size that vectors do not have."""
    size = vectors_ND.shape[1]
    if not 0 < dimensions <= size:
        raise ConfigError(f"dimensions: the vectors have {size}, not {dimensions}")
    short_ND = vectors_ND[:, :dimensions]
    return short_ND / np.maximum(np.linalg.norm(short_ND, axis=1, keepdims=True), 1e-12)


class Answers(list[Answer]):
    """Answers, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for answer in self for name in answer))
        shown = [name for name in names if name != "probabilities"]
        return html_table(shown, ([answer.get(name, "") for name in shown] for answer in self))


class Searchable(Protocol):
    """An index of vectors, in which a retrieval task looks for its answers."""

    def find(self, query_D: Vectors, k: int) -> list[Answer]:
        """The k most similar items, best first."""
        ...


class Predictor:
    """A saved model with its tasks and processors.

    `model`: a model, or where one is saved (see `load`). `tasks`: load only these. `device`: see
    `choose_device`. Raises ConfigError and WeightsError as `load` does.
    """

    def __init__(
        self,
        model: Model | str | Path,
        tasks: str | Collection[str] | None = None,
        device: str | None = "auto",
    ) -> None:
        self.owns_model = not isinstance(model, Model)
        found = model if isinstance(model, Model) else load(model, tasks)
        self.model = found if device is None else found.to(choose_device(device))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @cached_property
    def tasks(self) -> dict[str, ResolvedTask]:
        """The model's tasks by name, but for those that encode inputs alone."""
        found = {}
        for name in self.model.config.tasks:
            try:
                found[name] = self.task(name)
            except ConfigError:
                continue  # it encodes inputs alone
        return found

    def task(self, name: str) -> ResolvedTask:
        """A task by name. Raises ConfigError with the nearest valid name, and for a task that
        encodes inputs alone."""
        return resolved_task(self.model.config, name)

    def query_field(self, name: str) -> str:
        """The field of a row whose vector stands for it: for a task that encodes inputs alone, its
        first modality. Raises ConfigError for an unknown task."""
        if name in self.tasks:
            return self.tasks[name].entry.query_fields[0]
        return choose(self.model.config.tasks, name, "task").spans[0].modality.value

    def answering(self, name: str) -> ResolvedTask:
        """A task that gives answers. Raises ConfigError for one that does not, with those that
        do."""
        task = self.task(name)
        if task.entry.answers:
            return task
        usable = [one for one, other in self.tasks.items() if other.entry.answers]
        others = ", ".join(usable) or "nothing: this model has no other task"
        what = "is a pretraining task" if task.entry.pretraining else "predicts the words of a text"
        if task.target.writes_text:
            others += f", or let it write: skillweave generate --task {name}"
        raise ConfigError(f"task {name!r} {what} and has no answer; predict with {others}")

    def predict(
        self,
        task: str,
        inputs: Iterable[Any],
        index: Searchable | None = None,
        k: int = 5,
    ) -> Iterator[Answer]:
        """One answer per input, in order: `class` and `probability` (and all `probabilities`),
        `labels`, `score`, `tags`, `answer`, `transcript`, or `found` (the best `k` of `index`).

        `inputs`: rows under the task's field names, as `{"text": ..., "second": ...}`; for tasks
        that are given one thing also that alone: a text, a path, bytes, a picture, an array or a
        tensor. A broken input gives `{"error": reason}`. Raises ConfigError for an unknown task or
        one without answers.
        """
        check_several(inputs, "predict: inputs")
        found = self.answering(task)
        if not found.compares_samples:
            return self._answers(found, inputs)
        if index is None:
            raise ConfigError(
                f"task {task!r} finds its answers in an index; build one with sw.Index.build and"
                " give it as index="
            )
        return self._search(found, inputs, index, k)

    def encode(
        self,
        task: str,
        prompt: str | None = None,
        dimensions: int | None = None,
        **media: Sequence[Any],
    ) -> Vectors:
        """Unit-length vectors [N, D] (float32) of raw inputs of one modality, comparable across the
        passes of the task.

        `prompt`: name of the text that stands before each text, one of the target's `prompts`.
        `dimensions`: keep the first so many components, see `shorten`. `media`: one of `text=`,
        `image=`, `sound=`, `video=`, `code=`, a list of texts, paths, bytes, pictures, arrays
        or tensors.
        Raises ConfigError for an unknown task or a modality that the task does not encode alone,
        BadInput (naming it) for a broken item.
        """
        if len(media) != 1:
            raise ConfigError(
                "encode: give one of text=, image=, sound=, video=, code=, not"
                f" {' and '.join(media) or 'none'}"
            )
        modality, values = next(iter(media.items()))
        check_several(values, f"encode: {modality}=", modality)
        layout, processor = self.encoder(task, modality, prompt)
        examples = []
        for i, value in enumerate(values):
            try:
                examples.append(Example((processor(value),), {}, str(i)))
            except BadInput as error:
                told = str(value) if isinstance(value, str | Path) else ""
                named = f" ({told})"[:200] if told and told not in str(error) else ""
                raise BadInput(f"{modality}[{i}]{named}: {error}") from None
        vectors = self.encode_examples(layout, examples)
        return vectors if dimensions is None else self.shorten(task, vectors, dimensions)

    def shorten(self, task: str, vectors_ND: Vectors, dimensions: int) -> Vectors:
        """[N, dimensions] the first components of vectors of a task, with unit length.

        A target that was trained with `dimensions` (Matryoshka representation learning, arXiv
        2205.13147) keeps most of their quality; for others there is a warning. Raises ConfigError
        for a size that vectors do not have.
        """
        size = vectors_ND.shape[1]
        if dimensions == size:
            return vectors_ND
        short_ND = shortened(vectors_ND, dimensions)
        targets = [
            self.model.config.targets[name] for name in self.model.config.tasks[task].targets
        ]
        if not any(getattr(target, "dimensions", ()) for target in targets):
            warnings.warn(
                f"task {task!r} was not trained to be shortened; set `dimensions` of its target in"
                " training",
                stacklevel=3,
            )
        return short_ND

    def encode_each(
        self, task: str, modality: str, values: Iterable[Any]
    ) -> Iterator[Vectors | BadInput]:
        """For each raw value its unit vector [D], or the reason why it is broken, in order."""
        layout, processor = self.encoder(task, modality)
        rest = iter(values)
        while group := list(islice(rest, group_size(layout))):
            results: list[Vectors | BadInput] = []
            examples: list[Example] = []
            for value in group:
                try:
                    if value is None:
                        raise BadInput(f"no {modality}")
                    examples.append(Example((processor(_plain(value, modality)),), {}, ""))
                    results.append(np.zeros(0, np.float32))
                except BadInput as error:
                    results.append(error)
            vectors = iter(self.encode_examples(layout, examples))
            for result in results:
                yield result if isinstance(result, BadInput) else next(vectors)

    def encode_examples(
        self,
        layout: Layout,
        examples: Sequence[Example],
        max_tokens: int | None = None,
        resolved: Resolved | None = None,
    ) -> Vectors:
        """Unit vectors [N, D] of examples of one pass, batched by length. `max_tokens`: a batch has
        at most so many, or one example; if absent, 32 examples. `resolved`: the task's, see
        `Model.resolve`, from a caller whose weights do not change."""
        task, streams = layout.task, self.model.config.streams
        found: list[Tensor | None] = [None] * len(examples)
        with evaluating(self.model):
            resolved = resolved or self.model.resolve(task)
            for numbers in _by_length(examples, max_tokens):
                batch = collate(layout, [examples[i] for i in numbers], streams, PAD_TO_MULTIPLE_OF)
                vectors_ND = self.model.embed(batch.to(self.device), resolved)[0].float().cpu()
                for number, vector_D in zip(numbers, vectors_ND, strict=True):
                    found[number] = vector_D
        rows = [vector for vector in found if vector is not None]
        if not rows:
            return np.zeros((0, self.model.config.width), np.float32)
        return torch.stack(rows).numpy()

    def context(self, task: ResolvedTask) -> TaskContext:
        """What builds the examples of a task for prediction."""
        return build_context(task, self.model.assets, Mode.PREDICTION)

    def single_pass(self, task: str, modality: str) -> Layout:
        """The layout of the task's pass that holds nothing but `modality`. Raises ConfigError when
        there is none."""
        layout = choose(self.model.config.tasks, task, "task").layout(task)
        alone = [layout.only(p) for p in range(len(layout.passes))]
        found = {one.spans[0].modality.value: one for one in alone if len(one.spans) == 1}
        choose({m.value: m for m in Modality}, modality, "modality")
        return choose(found, modality, f"modality of task {task!r}")

    def encoder(
        self, task: str, modality: str, prompt: str | None = None
    ) -> tuple[Layout, Callable[[Any], Features]]:
        """The layout of a task's pass of one modality, and what turns a raw value into its features
        (raises BadInput). Raises ConfigError as `encode` does."""
        layout, config = self.single_pass(task, modality), self.model.config
        read = layout.spans[0].modality
        processor = build_processor(config, self.model.assets, read, config.limits)
        target = next((config.targets[name] for name in config.tasks[task].targets), None)
        name = prompt or getattr(target, "default_prompt", None)
        before = choose(getattr(target, "prompts", {}), name, "prompt") if name else ""
        return layout, (lambda text: processor(f"{before}{text}")) if before else processor

    def _search(
        self, task: ResolvedTask, inputs: Iterable[Any], index: Searchable, k: int
    ) -> Iterator[Answer]:
        field = task.entry.query_fields[0]
        modality = task.entry.spans[0].modality.value
        values = (row[field] for row in as_rows(inputs, [field]))
        for vector in self.encode_each(task.name, modality, values):
            if isinstance(vector, BadInput):
                yield {"error": str(vector)}
            else:
                yield {"found": index.find(vector, k)}

    def _answers(self, task: ResolvedTask, inputs: Iterable[Any]) -> Iterator[Answer]:
        answering = Answering(self, task)
        rest = as_rows(inputs, task.entry.given)
        # A text takes long to write, so the answers of one batch do not wait for others.
        size = BATCH if task.entry.answer_field else group_size(task.layout)
        while group := list(islice(rest, size)):
            examples: list[Example] = []
            answers: dict[str, Answer] = {}
            for i, row in enumerate(group):
                try:
                    examples += answering.examples(row, str(i))
                except BadInput as error:
                    answers[str(i)] = {"error": str(error)}
            if examples:
                answers |= answering.answers(examples)
            for i in range(len(group)):
                yield answers[str(i)]


class Answering:
    """How a task answers: a row becomes examples, and examples of many rows become answers.

    What the rows have in common, such as the vectors of the candidates, is made once. Raises
    ConfigError for a task without answers.
    """

    def __init__(self, predictor: Predictor, task: ResolvedTask) -> None:
        self.predictor, self.task = predictor, task
        self.context = predictor.context(task)
        candidates = build_candidates(task, self.context)
        batches = candidates.batches() if candidates else ()
        self.candidates = encode_candidates(predictor.model, batches)

    def examples(self, row: Mapping[str, Any], key: str) -> list[Example]:
        """A row as examples that share a key. Raises BadInput for a row that cannot be used."""
        for field in self.task.entry.given:
            if row.get(field) is None:
                raise BadInput(f"no {field}")
        return self.task.entry.build_parts({**row, "key": key}, self.context)

    def answers(
        self, examples: Sequence[Example], max_tokens: int | None = None
    ) -> dict[str, Answer]:
        """The answers by key. `max_tokens`: see `Predictor.encode_examples`."""
        task, model = self.task, self.predictor.model
        batches = (
            collate(
                task.input_layout,
                [examples[i] for i in numbers],
                model.config.streams,
                PAD_TO_MULTIPLE_OF,
                answers=model.config.target_embedding,
            )
            for numbers in _by_length(examples, max_tokens)
        )
        with evaluating(model):
            found = task.entry.predict(model, task, batches, self.candidates)
        return {key: task.entry.answer(found, i, task) for i, key in enumerate(found.keys)}


def predict(
    model: Model | Predictor | str | Path,
    task: str,
    inputs: Iterable[Any],
    index: Searchable | None = None,
    k: int = 5,
) -> Answers:
    """One answer per input, in a list that notebooks show as a table: see `Predictor.predict`."""
    return Answers(as_predictor(model).predict(task, inputs, index, k))


def encode(
    model: Model | Predictor | str | Path,
    task: str,
    prompt: str | None = None,
    dimensions: int | None = None,
    **media: Sequence[Any],
) -> Vectors:
    """Unit-length vectors of raw inputs: see `Predictor.encode`."""
    return as_predictor(model).encode(task, prompt, dimensions, **media)


def as_predictor(model: Model | Predictor | str | Path) -> Predictor:
    """A predictor of a model, which stays on its device, or of a saved model."""
    if isinstance(model, Predictor):
        return model
    return Predictor(model, device=None if isinstance(model, Model) else "auto")


def group_size(layout: Layout) -> int:
    """Inputs that are prepared at once. Media are large, and pictures and clips have one length, so
    there is nothing to sort."""
    texts = all(span.modality in (Modality.TEXT, Modality.CODE) for span in layout.spans)
    return BATCH * WINDOW if texts else BATCH


def count_tokens(example: Example) -> int:
    """The positions of an example in the model."""
    return sum(span.length for span in example.spans)


def _by_length(examples: Sequence[Example], max_tokens: int | None = None) -> Iterator[list[int]]:
    """Numbers of examples of similar length, a batch at a time."""
    lengths = [count_tokens(example) for example in examples]
    batch: list[int] = []
    tokens = 0
    for number in sorted(range(len(examples)), key=lengths.__getitem__):
        tokens += lengths[number]
        full = len(batch) >= BATCH if max_tokens is None else tokens > max_tokens
        if batch and full:
            yield batch
            batch, tokens = [], lengths[number]
        batch.append(number)
    if batch:
        yield batch


def _plain(value: Any, modality: str) -> Any:
    """Of several captions the first; media as they are."""
    is_text = modality in ("text", "code") and not isinstance(value, bytes | Path | Mapping)
    return first_text(value) if is_text else value

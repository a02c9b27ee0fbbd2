"""Answers for raw inputs: a class, a transcript, or what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from skillweave.api import build_batch, encode
from skillweave.config import ConfigError, RecipeConfig, choose
from skillweave.config.targets import ClassificationTarget
from skillweave.data.processors import BadInput, Processor, build_processors
from skillweave.evaluation.predictions import ctc_characters, decode_ctc, encode_candidates, evaluating, target_of
from skillweave.model import Model
from skillweave.search.index import Index, build_index, searchable
from skillweave.tasks.candidates import build_candidates
from skillweave.tasks.dataset import task_of
from skillweave.tasks.task import Tools

Answer = dict[str, Any]


def predict(model: Model, recipe: RecipeConfig, task: str, values: Sequence[Any], k: int = 5) -> Iterator[Answer]:
    """One answer per raw input, in order: `class` and `probability` (and all `probabilities`), `transcript`, or `found` (top k).

    Retrieval takes the task's query (text) and searches all of the run's samples. A broken input gives `{"error": reason}`.
    Raises ConfigError for an unknown task or one that has nothing to predict.
    """
    targets = choose(model.config.tasks, task, "task").targets
    kind = model.config.targets[next(iter(targets))].kind
    if kind not in ANSWERS:
        raise ConfigError(f"task {task!r} is a pretraining task (target {kind}); predict with {', '.join(_usable(model))}")
    answer = ANSWERS[kind](model, recipe, task, k)
    layout = model.config.tasks[task].layout(task)
    processor = build_processors(model.config, model.assets, recipe.limits)[layout.spans[0].modality]
    for value in values:
        try:
            with evaluating(model):
                yield answer(processor, value)
        except BadInput as error:
            yield {"error": str(error)}


def query_modality(model: Model, task: str) -> str:
    """What a task is asked with. Raises ConfigError for an unknown task."""
    return choose(model.config.tasks, task, "task").spans[0].modality.value


def read_inputs(modality: str, words: Sequence[str], file: str | None = None) -> list[tuple[str, Any]]:
    """(name, value) of raw inputs given as files, as texts (text and code alone), or as a .jsonl file with the field `modality`.

    Media paths in the file are relative to its folder. Raises ConfigError for nothing at all, a line that is not JSON or lacks
    the field.
    """
    inputs: list[tuple[str, Any]] = []
    for word in words:
        is_text = modality in ("text", "code") and not Path(word).is_file()
        inputs.append((word, word if is_text else Path(word)))
    if file:
        for number, line in enumerate(Path(file).read_text("utf-8").splitlines(), 1):
            if line.strip():
                value = _field(line, modality, f"{file}:{number}")
                inputs.append((value, value if modality in ("text", "code") else Path(file).parent / value))
    if not inputs:
        raise ConfigError(f"nothing to answer for: give {modality} inputs, or --input FILE.jsonl")
    return inputs


def _field(line: str, modality: str, where: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON ({error.msg})") from None
    value = row.get(modality) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise ConfigError(f'{where}: expected {{"{modality}": "..."}}')
    return value


def _usable(model: Model) -> list[str]:
    kinds = {name: model.config.targets[next(iter(task.targets))].kind for name, task in model.config.tasks.items()}
    return [name for name, kind in kinds.items() if kind in ANSWERS] or ["nothing: this run has pretraining tasks only"]


Answerer = Callable[[Processor, Any], Answer]


def _classifier(model: Model, recipe: RecipeConfig, task: str, k: int) -> Answerer:
    config = model.config.targets[target_of(model, task, "classification")]
    return _class_answerer(model, task, config.classes if isinstance(config, ClassificationTarget) else [])


def _chooser(model: Model, recipe: RecipeConfig, task: str, k: int) -> Answerer:
    entry, config = task_of(recipe, task), recipe.tasks[task]
    target = model.config.targets[target_of(model, task, "similarity")]
    if entry.candidates is None:
        return _finder(model, recipe, task, k)
    if entry.candidates == "words":
        raise ConfigError(f"task {task!r} is measured on texts that are there; it has no answer of its own for an input")
    tools = Tools(build_processors(model.config, model.assets), model.config, config, target)
    found = build_candidates(task, entry, tools)
    vectors = encode_candidates(model, found.batches() if found else ())
    return _class_answerer(model, task, list(config.classes), vectors)


def _class_answerer(model: Model, task: str, classes: Sequence[str], candidates: Tensor | None = None) -> Answerer:
    layout = model.config.tasks[task].layout(task).only(0)

    def answer(processor: Processor, value: Any) -> Answer:
        batch = build_batch(model, layout, processor, [value]).to(next(model.parameters()).device)
        logits_NC = next(iter(model(batch, candidates=candidates).logits.values()))
        shares = logits_NC[0].float().softmax(-1).tolist()
        best = max(range(len(classes)), key=shares.__getitem__)
        return {"class": classes[best], "probability": shares[best], "probabilities": dict(zip(classes, shares, strict=True))}

    return answer


def _transcriber(model: Model, recipe: RecipeConfig, task: str, k: int) -> Answerer:
    target, characters = target_of(model, task, "ctc"), ctc_characters(model, task)
    layout = model.config.tasks[task].layout(task)

    def answer(processor: Processor, value: Any) -> Answer:
        batch = build_batch(model, layout, processor, [value]).to(next(model.parameters()).device)
        frames = model(batch).logits[target][0].argmax(-1).cpu()
        return {"transcript": decode_ctc(frames[: int(batch.lengths[0, 0])], characters)}

    return answer


def _finder(model: Model, recipe: RecipeConfig, task: str, k: int) -> Answerer:
    if task not in searchable(model, recipe):
        raise ConfigError(f"task {task!r} compares several passes; it can be measured, but not searched")
    asked, wanted = (span.modality.value for span in model.config.tasks[task].spans)
    index: Index = build_index(model, recipe, wanted, task=task)

    def answer(processor: Processor, value: Any) -> Answer:
        hits = index.search(encode(model, task, **{asked: [value]})[0], k)
        return {"found": [hit_row(hit) for hit in hits]}

    return answer


def hit_row(hit: Any) -> Answer:
    """A hit as plain data."""
    return {"score": hit.score, "key": hit.entry.key, "caption": hit.entry.caption, "split": hit.entry.split}


ANSWERS: dict[str, Callable[[Model, RecipeConfig, str, int], Answerer]] = {
    "classification": _classifier,
    "ctc": _transcriber,
    "contrastive": _finder,
    "similarity": _chooser,
}
"""Kind of target → how its answers are made."""

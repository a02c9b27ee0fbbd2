"""What targets must know of the training data's labels, where the recipe leaves it open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.data.processors import BadInput, tokenizer_asset
from skillweave.data.processors.tokenizer import MASK, read_tokenizer
from skillweave.model.config import ModelConfig
from skillweave.recipe import RecipeConfig
from skillweave.tasks.build import as_text, listed, score_of
from skillweave.tasks.dataset import open_fields, task_of


def flat(values: Iterable[Any]) -> Iterator[str]:
    """The texts of a column, of lists each one."""
    for value in values:
        yield from (
            text
            for v in (value if isinstance(value, list) else [value])
            if (text := as_text(v)) is not None
        )


def with_labels(
    recipe: RecipeConfig, model: ModelConfig, assets: Mapping[str, bytes]
) -> ModelConfig:
    """Class lists, alphabets and scales from the training data, of which any fraction has the same,
    and prompts' words as pieces.

    Raises ConfigError for labels that nothing can be learned from.
    """
    data = model.model_dump(mode="json")
    found: dict[str, list[Any]] = {}
    told_apart: dict[str, dict[str, set[str]]] = {}  # target → task → its labels
    for name, config in recipe.tasks.items():
        target = config.target or task_of(recipe, name).target
        spec = data["targets"][target]
        if spec["kind"] == "prompt":
            spec["words"] = prompt_words(recipe, name, assets)
        field = FIELDS.get(spec["kind"])
        if field and any(spec[key] in ([], None) for key in LEARNED[spec["kind"]][0]):
            values = list(open_fields(recipe, name, "train", whole=True).column(field))
            found.setdefault(target, []).extend(values)
            if field == "label":
                told_apart.setdefault(target, {})[name] = {
                    str(value) for value in values if value is not None
                }
    _require_common(told_apart)
    for target, values in found.items():
        spec = data["targets"][target]
        keys, learn = LEARNED[spec["kind"]]
        learned = learn([v for v in values if v is not None], target)
        spec.update({k: learned[k] for k in keys if spec[k] in ([], None)})
    return ModelConfig.parse(data, "model")


def _require_common(told_apart: Mapping[str, Mapping[str, set[str]]]) -> None:
    """Raise ConfigError for tasks of one classifier that share no label: each would guess among the
    labels of all."""
    for target, tasks in told_apart.items():
        for (one, labels), (other, others) in combinations(tasks.items(), 2):
            if labels and others and not labels & others:
                shown = [", ".join(sorted(side)[:3]) for side in (labels, others)]
                fault = (
                    f"tasks.{one} and tasks.{other} share the target {target!r} and no label"
                    f" ({shown[0]}; {shown[1]})"
                )
                raise ConfigError(
                    f"{fault}; give one of them a classifier of its own: `target: {other}` under"
                    f" tasks.{other}"
                )


def _classes(values: list[Any], target: str, least: int = 2) -> dict[str, Any]:
    classes = sorted(set(map(str, values)))
    if len(classes) < least:
        raise ConfigError(
            f"model.targets.{target}: the training data has {len(classes)} classes; check the label"
            " column"
        )
    return {"classes": classes}


def _several(values: list[Any], target: str) -> dict[str, Any]:
    return _classes([label for value in values for label in listed(value)], target, least=1)


def _characters(values: list[Any], target: str) -> dict[str, Any]:
    characters = sorted({c for text in flat(values) for c in text})
    if not characters:
        raise ConfigError(
            f"model.targets.{target}: the training data has 0 characters; check the label column"
        )
    return {"characters": characters}


def _scale(values: list[Any], target: str) -> dict[str, Any]:
    numbers = []
    for value in values:
        try:
            numbers.append(score_of(value))
        except BadInput:
            continue  # listed when training meets it
    if len(set(numbers)) < 2:
        raise ConfigError(
            f"model.targets.{target}: the training data has {len(set(numbers))} different scores;"
            " check the column"
        )
    mean, deviation, least, most = np.mean(numbers), np.std(numbers), min(numbers), max(numbers)
    return {"mean": float(mean), "deviation": float(deviation), "least": least, "most": most}


FIELDS = {
    "classification": "label",
    "multi_label": "labels",
    "token_labels": "tags",
    "ctc": "transcript",
    "regression": "score",
    "cosine": "score",
}
"""Kind of target → the field that holds its labels."""

LEARNED: dict[str, tuple[tuple[str, ...], Callable[[list[Any], str], dict[str, Any]]]] = {
    "classification": (("classes",), _classes),
    "multi_label": (("classes",), _several),
    "token_labels": (("classes",), _several),
    "ctc": (("characters",), _characters),
    "regression": (("mean", "deviation"), _scale),
    "cosine": (("least", "most"), _scale),
}
"""Kind of target → the settings that labels give, and how."""


def prompt_words(recipe: RecipeConfig, name: str, assets: Mapping[str, bytes]) -> list[list[int]]:
    """The pieces of the word of each class of a prompt.

    Raises ConfigError where words differ in their number of pieces, or the template has no {text}
    or no [MASK].
    """
    config = recipe.tasks[name]
    if config.template.count("{text}") != 1 or config.template.count(MASK) != 1:
        raise ConfigError(
            f"tasks.{name}.template: {config.template!r} needs one {{text}} and one {MASK}"
        )
    tokenizer = read_tokenizer(assets[tokenizer_asset(Modality.TEXT)])
    pieces = {
        word: tokenizer.encode(word, add_special_tokens=False).ids
        for word in config.classes.values()
    }
    if len({len(ids) for ids in pieces.values()}) != 1:
        found = ", ".join(f"{word!r} {len(ids)}" for word, ids in pieces.items())
        raise ConfigError(
            f"tasks.{name}.classes: words must have as many pieces as each other, and have {found};"
            " choose others"
        )
    if len(set(map(tuple, pieces.values()))) < len(pieces):
        raise ConfigError(
            f"tasks.{name}.classes: to the tokeniser some words are the same; choose others"
        )
    return list(pieces.values())

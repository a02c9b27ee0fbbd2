"""Which family can express a configuration, and what it cannot."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from skillweave.config import ConfigError, choose
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.interop.huggingface.family import Family, Head
from skillweave.model.config import ModelConfig

PREDICTION = {
    "lm": ("label_smoothing", "beams", "length_penalty", "max_answer_tokens", "begin"),
    "ctc": ("beams", "language", "language_text", "language_weight", "length_bonus"),
}
PREDICTED = tuple(
    f"targets.{kind}.{option}" for kind, options in PREDICTION.items() for option in options
)
ASIDE = ("tasks.", "sliced", "initializer_range", "encoder.prompts", *PREDICTED)
"""What says nothing of the function that the model computes."""
SHOWN, FAR = 8, 12
"""Differences that an error lists, and beyond which a family is not one that nearly fits."""
ASIDE_OF_STREAMS = ("tokenizer", "mean", "std")


class Fit(NamedTuple):
    """The family, the architecture with its head, the options of its configuration, and those of
    the class beside it."""

    family: Family
    architecture: str
    head: Head
    options: dict[str, Any]
    flags: dict[str, bool]


def find_family(config: ModelConfig, name: str | None = None) -> Fit:
    """The family and architecture that can express a configuration. Raises ConfigError that names
    what cannot be expressed.

    A family expresses a configuration when its own reading of the options that it writes gives the
    configuration back.
    """
    families = FAMILIES.values() if name is None else [choose(FAMILIES, name, "family")]
    with quiet():
        return _find(config, name, families)


@contextmanager
def quiet() -> Generator[None]:
    """Without what transformers says of a configuration: of a family that is tried and does not fit
    it means nothing."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _find(config: ModelConfig, name: str | None, families: Iterable[Family]) -> Fit:
    ours = flatten(config)
    kinds = sorted(target.kind for target in config.targets.values())
    attempts: list[tuple[list[str], Fit]] = []
    for family in families:
        for architecture, head in family.heads.items():
            flags = {head.optional: False} if head.optional and not kinds else {}
            head = head.bare() if flags else head
            if sorted(head.targets) == kinds:
                fit = Fit(head.family or family, architecture, head, {}, flags)
                attempts.append(_attempt(fit, ours))
    if not attempts:
        whose = f"family {name!r} has" if name else "there is"
        remedy = (
            "; convert what `skillweave carve` makes of one task" if len(config.tasks) > 1 else ""
        )
        raise ConfigError(
            f"{whose} no architecture with the targets {', '.join(kinds) or 'none'}{remedy}"
        )
    differences, fit = min(attempts, key=lambda attempt: len(attempt[0]))
    if differences:
        differences = list(dict.fromkeys(differences))
        shown = "; ".join(differences[:SHOWN]) + (
            f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        )
        far = (
            f"no family expresses this model; the nearest, {fit.family.model_type!r}"
            f" ({fit.architecture}), differs in {shown}"
        )
        near = f"family {fit.family.model_type!r} ({fit.architecture}) cannot express {shown}"
        raise ConfigError(far if len(differences) > FAR and name is None else near)
    return fit


def _attempt(fit: Fit, ours: Mapping[str, Any]) -> tuple[list[str], Fit]:
    """What is not as it was once the family has written and read it, and the fit with the options
    that it wrote."""
    import transformers

    try:
        fit = fit._replace(options=fit.family.write(ours, fit.head))
        theirs = getattr(transformers, fit.architecture).config_class(**fit.options)
        back = flatten(fit.family.read(theirs, fit.head))
    # their configurations raise errors of many kinds for what they cannot hold
    except Exception as error:
        return [f"these sizes ({error})"] * len(ours), fit
    return list(_differences(ours, back)), fit


def _differences(ours: Mapping[str, Any], back: Mapping[str, Any]) -> Iterator[str]:
    missing = object()
    for path in dict.fromkeys([*ours, *back]):
        stream, _, option = path.rpartition(".")
        if option == "max_length" and "position" not in ours.get(
            f"{stream}.embedding", ["position"]
        ):
            continue  # how long texts may be is then for whoever reads them to say
        if option == "characters" and len(ours[path]) == len(back[path]):
            continue  # what they are stands in a file of theirs
        own, other = (side.get(path, missing) for side in (ours, back))
        if own != other:
            said, has = ("nothing" if x is missing else repr(x) for x in (own, other))
            yield f"{path} {said} (it has {has})"


def flatten(config: ModelConfig) -> dict[str, Any]:
    """Options by dotted path, defaults that depend on others filled in, targets by their kinds."""
    data = config.model_dump(mode="json")
    data["targets"] = {target["kind"]: target for target in data["targets"].values()}
    parts = [(data["encoder"], config.width), (data["decoder"], config.width)]
    parts += [
        (stream["encoder"], stream["width"] or config.width) for stream in data["streams"].values()
    ]
    for part, width in parts:
        if part and "heads" in part:
            part["key_value_heads"] = part["key_value_heads"] or part["heads"]
            part["head_size"] = part["head_size"] or width // part["heads"]
            part["distinct_layers"] = part["distinct_layers"] or part["layers"]
    for stream in filter(None, [*data["streams"].values(), data["target_embedding"]]):
        stream["width"] = stream["width"] or config.width
        if "vocabulary" in stream:
            stream["embedding_size"] = stream["embedding_size"] or stream["width"]
    flat = dict(_walk(data, ""))
    return {path: value for path, value in flat.items() if not _aside(path)}


def _aside(path: str) -> bool:
    parts = path.split(".")
    return path.startswith(ASIDE) or (
        parts[0] in ("streams", "target_embedding") and bool(set(ASIDE_OF_STREAMS) & set(parts))
    )


def _walk(data: Any, path: str) -> Any:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _walk(value, f"{path}.{key}" if path else key)
    else:
        yield path, data

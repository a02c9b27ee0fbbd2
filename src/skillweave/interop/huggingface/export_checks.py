"""Which family can express a configuration, and what it cannot express."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from skillweave.config import ConfigError
from skillweave.config.registry import load_plugins
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.interop.huggingface.family import PROBLEMS, Family, Head, unchanged
from skillweave.model.config import ModelConfig

NOT_COMPARED = ("tasks.", "sliced", "initializer_range", "encoder.prompts")
"""Prefixes of options that do not affect the function that the model computes."""
NOT_COMPARED_OF_STREAMS = {
    "tokenizer",
    "special_ids",
    "max_tokens",
    "mean",
    "std",
    "resize",
    "resize_to",
    "resize_filter",
    "sample_rate",
    "normalised",
}
"""Options of streams that are in the processor files."""
SHOWN = 8
"""Number of differences that an error lists."""
FAR = 12
"""A family with more differences is not proposed."""
MISSING = object()


def decoding_options(config: ModelConfig) -> set[str]:
    """The options of targets that only affect decoding, by dotted path."""
    return {
        f"targets.{target.kind}.{option}"
        for target in config.targets.values()
        for option in target.decoding_options
    }


class FamilyMatch(NamedTuple):
    """The family and architecture that express a configuration."""

    family: Family
    architecture: str
    head: Head
    options: dict[str, Any]
    """Of the Hugging Face configuration."""
    arguments: dict[str, bool]
    """Of the architecture's class, besides its configuration."""


def find_family(config: ModelConfig, name: str | None = None) -> FamilyMatch:
    """The family and architecture that can express a configuration; `name`: only this family.

    A family expresses a configuration if it reads the same configuration from the options that it
    writes. Raises ConfigError that names what cannot be expressed.
    """
    load_plugins()
    families = FAMILIES.values() if name is None else [FAMILIES.find(name)]
    kinds = sorted(target.kind for target in config.targets.values())
    candidates = list(_candidates(families, kinds))
    if not candidates:
        owner = f"family {name!r} has" if name else "there is"
        remedy = (
            "; convert one task at a time, after `skillweave carve`"
            if len(config.tasks) > 1
            else ""
        )
        raise ConfigError(
            f"{owner} no architecture with the targets {', '.join(kinds) or 'none'}{remedy}"
        )
    options = flatten(config)
    with _quiet():
        attempts = [_attempt(candidate, options) for candidate in candidates]
    differences, found = min(attempts, key=lambda attempt: len(attempt[0]))
    if differences:
        raise ConfigError(_explain(differences, found, proposed=name is None))
    return found


def _candidates(families: Iterable[Family], kinds: Sequence[str]) -> Iterator[FamilyMatch]:
    """All architectures with targets of these kinds."""
    for family in families:
        for architecture, head in family.heads.items():
            arguments = {}
            if head.omitted_by and not kinds:
                head, arguments = head.without_targets(), {head.omitted_by: False}
            solvable = PROBLEMS if "problem_type" in head.required else {}
            for one in (head, *map(head.solving, solvable)):
                if sorted(one.targets) == kinds:
                    yield FamilyMatch(one.family or family, architecture, one, {}, arguments)


def _explain(differences: list[str], found: FamilyMatch, proposed: bool) -> str:
    unique = list(dict.fromkeys(differences))
    shown = "; ".join(unique[:SHOWN])
    if len(unique) > SHOWN:
        shown += f" and {len(unique) - SHOWN} more"
    family = f"{found.family.model_type!r} ({found.architecture})"
    if proposed and len(unique) > FAR:
        return f"no family expresses this model; the nearest, {family}, differs in {shown}"
    return f"family {family} cannot express {shown}"


@contextmanager
def _quiet() -> Generator[None]:
    """Without the warnings of Transformers about the options of families that do not match."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _attempt(candidate: FamilyMatch, options: Mapping[str, Any]) -> tuple[list[str], FamilyMatch]:
    """What differs once a family has written and read the options, and the match with what it
    wrote."""
    family, architecture, head, *_ = candidate
    try:
        candidate = candidate._replace(options=family.write_config(options, head))
        hf_config = family.architecture(architecture).config_class(**candidate.options)
        back = flatten(family.read_config(hf_config, head))
    # Hugging Face configurations raise errors of many kinds for values that they cannot hold.
    except Exception as error:
        return [f"these sizes ({error})"] * len(options), candidate
    return list(_differences(options, back, candidate)), candidate


def _differences(
    options: Mapping[str, Any], back: Mapping[str, Any], candidate: FamilyMatch
) -> Iterator[str]:
    fields = candidate.family.all_fields(candidate.head)
    for path in dict.fromkeys([*options, *back]):
        stream, _, option = path.rpartition(".")
        if option == "max_length" and "position" not in options.get(
            f"{stream}.embedding", ["position"]
        ):
            continue  # Without a table of positions, the length is no property of the model.
        ours, theirs = options.get(path, MISSING), back.get(path, MISSING)
        compare = fields[path].compare if path in fields else unchanged
        if MISSING in (ours, theirs) or compare(ours) != compare(theirs):
            said, has = ("nothing" if x is MISSING else repr(x) for x in (ours, theirs))
            yield f"{path} {said} (it has {has})"


def flatten(config: ModelConfig) -> dict[str, Any]:
    """The options that affect the function of a model, by dotted path.

    Defaults that depend on other options are filled in. Targets are named by their kinds.
    """
    data = config.model_dump(mode="json")
    data["targets"] = {target["kind"]: target for target in data["targets"].values()}
    for stream in filter(None, [*data["streams"].values(), data["target_embedding"]]):
        stream["width"] = stream["width"] or config.width
        if "position_size" in stream:
            stream["position_size"] = stream["position_size"] or stream["size"]
        if "vocabulary" in stream:
            stream["embedding_size"] = stream["embedding_size"] or stream["width"]
    blocks = [(data["encoder"], config.width), (data["decoder"], config.width)]
    blocks += [(stream["encoder"], stream["width"]) for stream in data["streams"].values()]
    for part, width in blocks:
        if part and "heads" in part:
            part["key_value_heads"] = part["key_value_heads"] or part["heads"]
            part["head_size"] = part["head_size"] or width // part["heads"]
            part["scale_size"] = part["scale_size"] or part["head_size"]
            part["distinct_layers"] = part["distinct_layers"] or part["layers"]
    decoding = decoding_options(config)
    return {
        path: value
        for path, value in _walk(data, "")
        if _is_compared(path) and ".".join(path.split(".")[:3]) not in decoding
    }


def _is_compared(path: str) -> bool:
    part, *rest = path.split(".")
    if part in ("streams", "target_embedding") and NOT_COMPARED_OF_STREAMS.intersection(rest):
        return False
    return not path.startswith(NOT_COMPARED)


def _walk(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All leaves of nested dictionaries by dotted path."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _walk(value, f"{path}.{key}" if path else key)
    else:
        yield path, data

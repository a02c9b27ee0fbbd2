"""YAML and JSON that others wrote, within bounds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from skillweave.config.errors import ConfigError, reading

T = TypeVar("T")

MAX_YAML_BYTES = 2**20
"""Largest YAML text. A recipe has a few thousand bytes."""
MAX_VALUES = 100_000
"""Most values of a YAML text, where an alias counts as often as it is used."""
MAX_DEPTH = 64
"""Deepest nesting of settings."""
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's safe loader, in C where it is compiled: ten times as fast."""


def parse_json(text: str | bytes, where: object) -> Any:
    """The value of a JSON text. Raises ConfigError for anything else, also for a key that stands
    twice in one object."""
    with reading(where, "valid JSON"):
        return shallow(json.loads(_decode(text), object_pairs_hook=unique_keys))


def parse_yaml(text: str | bytes, where: object, what: str = "valid YAML") -> Any:
    """The value of a YAML text. Raises ConfigError for anything else, also for a key that stands
    twice in one mapping, and for a text that its aliases make larger than `MAX_VALUES`."""
    with reading(where, what):
        if len(text) > MAX_YAML_BYTES:
            raise ValueError(f"{len(text):,} bytes; at most {MAX_YAML_BYTES:,} are read")
        content = _decode(text)
        loader = LOADER(content)
        try:
            _require_shallow(content)
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {})
            return loader.construct_document(node)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from None
        finally:
            loader.dispose()


def lines_of(text: str | bytes) -> list[str]:
    """The lines of a text, which end with \\n or \\r\\n. `str.splitlines` also ends them at U+2028,
    U+0085 and others, which stand in texts and vocabularies."""
    lines = _decode(text).replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def parse_override(text: str) -> tuple[str, Any]:
    """The key and the value of `path.to.key=value`, whose value is YAML. Raises ConfigError."""
    key, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"override {text!r}: write it as path.to.key=value")
    return key, parse_yaml(value, f"override {text!r}")


def read_lines(file: Path, setting: str = "") -> list[str]:
    """The lines of a text file: see `lines_of`. `setting`: what names the file. Raises ConfigError
    where it is absent or not UTF-8."""
    where = f"{setting} {file}".strip()
    if not file.is_file():
        raise ConfigError(f"{where}: no such file; give a text file")
    with reading(where, "a text file"):
        return lines_of(file.read_bytes())


def _decode(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8-sig")


def _count(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many values a node has, with those of its aliases. Raises ValueError for too many, for an
    alias of itself, and for a key that stands twice."""
    if node in known:
        if not known[node]:
            raise ValueError("an alias stands for a value that contains it")
        return known[node]
    known[node] = 0
    parts: Iterator[yaml.Node] = iter(())
    if isinstance(node, yaml.SequenceNode):
        parts = iter(node.value)
    elif isinstance(node, yaml.MappingNode):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := _repeated(key.value for key in keys if key.value != "<<"):
            line = next(key.start_mark.line for key in keys[::-1] if key.value == twice) + 1
            raise ValueError(f"line {line}: the key {twice!r} stands twice; merge the two")
        parts = (part for pair in node.value for part in pair)
    known[node] = 1 + sum(_count(part, known) for part in parts)
    if known[node] > MAX_VALUES:
        raise ValueError(f"its aliases stand for more than {MAX_VALUES:,} values")
    return known[node]


def _require_shallow(text: str) -> None:
    """Raise ValueError for deep nesting, which would exhaust the stack of the parser."""
    depth = 0
    for event in yaml.parse(text, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep")


def _repeated(keys: Iterable[str]) -> str | None:
    """The first key that stands twice."""
    return next((key for key, count in Counter(keys).items() if count > 1), None)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An `object_pairs_hook` of `json.loads`. Raises ValueError for a key that stands twice in one
    object, of which the last would be taken without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = _repeated(key for key, _ in pairs)
        raise ValueError(f"the key {twice!r} stands twice in one object; remove one")
    return found


def shallow(data: T) -> T:
    """The same value. Raises ValueError for nesting deeper than `MAX_DEPTH`."""
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for value in level
            if isinstance(value, dict | list)
            for part in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    return data


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no file. Raises ConfigError for anything
    else."""
    data = parse_json(file.read_bytes(), file) if file.is_file() else {}
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected a JSON object, not {type(data).__name__}")
    return data

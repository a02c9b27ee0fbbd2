"""The base of every configuration class, and errors a person can act on."""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import textwrap
import types
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from skillweave.config.errors import ConfigError, reading

Positive = Annotated[int, Field(gt=0, lt=2**63)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
SYNONYMS = {"gpu": "cuda", "fp32": "float32", "bfloat16": "bf16"}
"""What other libraries call a value → its name here."""
Share = Annotated[float, Field(ge=0, lt=1)]
T = TypeVar("T")
C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Keyword-only, immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
    discriminator: ClassVar[str] = "kind"
    """The field whose value names the class where it is a member of a union."""
    describes: ClassVar[Mapping[str, str]] = {}
    """Field → the field that it tells something of, and with which it is replaced."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The values that name this class in a union; none for a class without a discriminator."""
        field = cls.model_fields.get(cls.discriminator)
        return typing.get_args(field.annotation) if field else ()

    @classmethod
    def docstrings(cls) -> dict[str, str]:
        """The docstring below each field. They are read from the source when somebody asks, since
        reading them all would delay every command by a tenth of a second."""
        found: dict[str, str] = {}
        for kind in reversed(cls.__mro__[: cls.__mro__.index(Config)]):
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
            assert isinstance(definition, ast.ClassDef)
            for field, below in itertools.pairwise([*definition.body, ast.Pass()]):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    found.pop(field.target.id, None)
                    match below:
                        case ast.Expr(value=ast.Constant(value=str(text))):
                            found[field.target.id] = inspect.cleandoc(text)
        return found

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in cls.docstrings().items():
            if name in properties:
                properties[name].setdefault("description", text)
        return schema

    @classmethod
    def parse(cls: type[C], data: Mapping[str, Any], where: str = "") -> C:
        """Validate `data`. Raises ConfigError with all faults at once, each with its path and the
        nearest valid name."""
        with reading(where or cls.__name__, "valid settings"):
            try:
                return cls.model_validate(data)
            except ValidationError as error:
                raise ConfigError(explain(cls, error, where)) from None


def nearest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the valid names when nothing is near."""
    names = [str(v) for v in valid]
    close = difflib.get_close_matches(name, names, n=1)
    if len(name) <= 4:  # a short name is near to others by chance
        close = [one for one in close if one[0] == name[0]]
    if (meant := SYNONYMS.get(name.lower())) in names:
        close = [str(meant)]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid names: {', '.join(names)}" if names else ""


def choose(table: Mapping[Any, T], name: str, what: str) -> T:
    """`table[name]`, or a ConfigError that names the nearest valid name."""
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}{nearest(name, table)}")
    return table[name]


def explain(model: type[BaseModel], error: ValidationError, where: str = "") -> str:
    """All faults of a validation, a line each: path, what is wrong, what to write instead."""
    lines = []
    faults = [(fault, *_walk(model, [str(p) for p in fault["loc"]])) for fault in error.errors()]
    several = Counter(tuple(path) for _, path, *_ in faults)
    for fault, path, nodes, siblings in faults:
        if fault["input"] is None and several[tuple(path)] > 1:
            # a value that no member of a union accepts, told once
            if not any(line.startswith(".".join(path)) for line in lines):
                lines.append(f"{'.'.join(path)}: null is no value here; give one, or leave it out")
            continue
        name = ".".join(path) or model.__name__.removesuffix("Config").lower()
        if fault["type"] == "extra_forbidden":
            lines.append(f"{name}: {_unknown_key(model, path[-1], nodes, siblings)}")
        elif fault["type"] in ("enum", "literal_error", "union_tag_invalid"):
            context = fault["ctx"]
            expected = str(context.get("expected_tags") or context["expected"])
            valid = [v.strip(" '") for v in expected.replace(" or ", ",").split(",")]
            value = context.get("tag", fault["input"])
            if (key := context.get("discriminator", "")).endswith("()"):
                name += f".{key.removesuffix('()')}"
            lines.append(f"{name}: unknown value {value!r}{nearest(str(value), valid)}")
        elif fault["type"] in ("model_type", "dict_type"):
            lines.append(f"{name}: expected a mapping of settings by name{_got(fault['input'])}")
        else:
            got = "" if isinstance(fault["input"], dict | BaseModel) else _got(fault["input"])
            lines.append(f"{name}: {fault['msg'].removeprefix('Value error, ')}{got}")
    count = f"{len(lines)} fault{'s' if len(lines) != 1 else ''}"
    return f"{where or model.__name__}: {count}\n" + "\n".join(f"  - {line}" for line in lines)


def _got(value: Any) -> str:
    return f" (got {value!r:.200})" if not isinstance(value, str) else f" (got {value[:200]!r})"


def _walk(model: Any, location: list[str]) -> tuple[list[str], list[Any], list[Any]]:
    """The path as a person writes it, the classes above its end, and, where these are members of a
    union, its other members.

    pydantic puts the names of union members into a location; the path does without them.
    """
    nodes, path, siblings = [model], [], []
    location = [step for step in location if step != "[key]"]
    for i, step in enumerate(location):
        kinds = [kind for node in nodes for kind in members_of(node)]
        named = (
            [kind for kind in kinds if step.partition("[")[0] in _tags(kind)]
            if len(kinds) > 1
            else []
        )
        if named and not any(_is_config(kind) and step in kind.model_fields for kind in kinds):
            nodes, siblings = named, [kind for kind in kinds if kind not in named]
            continue
        path.append(step)
        if i < len(location) - 1:
            nodes, siblings = [child for kind in kinds for child in children_of(kind, step)], []
    return path, nodes, siblings


def _unknown_key(root: Any, key: str, nodes: list[Any], siblings: list[Any]) -> str:
    """What is wrong with a key that a class does not have, and what to write instead."""
    options, others = _fields(nodes), _fields(siblings)
    if key in others:
        owners = ", ".join(_name(kind) for kind in siblings if key in _fields([kind]))
        return (
            f"{_name(nodes[0])} has no {key}, which is an option of {owners}; its options are"
            f" {', '.join(sorted(options))}"
        )
    near = difflib.get_close_matches(key, options)
    if not near and (places := _places(root, key)):
        return f"unknown key here; it is an option at {' and at '.join(places)}"
    near = near or not difflib.get_close_matches(key, others)
    return f"unknown key{nearest(key, options if near else others)}"


def _places(root: Any, key: str) -> list[str]:
    """Where settings have a key of this name: the paths nearest to the root, two at most. NAME
    stands for any key of a mapping, and [] for any element of a list."""
    found: list[str] = []
    level, seen = [("", root)], set()
    while level and not found:
        below = []
        for path, kind in level:
            kinds = [one for one in members_of(kind) if one not in (None, type(None))]
            for one in kinds:
                if not _is_config(one):
                    items = typing.get_args(one)
                    step = "NAME" if typing.get_origin(one) is not list else "[]"
                    below += [(f"{path}.{step}".lstrip("."), items[-1])] if items else []
                elif one not in seen:
                    seen.add(one)
                    if key in one.model_fields:
                        found.append(f"{path}.{key}".lstrip("."))
                    for name, field in one.model_fields.items():
                        below.append((f"{path}.{name}".lstrip("."), field.annotation))
        level = below
    return list(dict.fromkeys(found))[:2]


def _fields(nodes: list[Any]) -> list[str]:
    kinds = [kind for node in nodes for kind in members_of(node) if _is_config(kind)]
    return list(dict.fromkeys(name for kind in kinds for name in kind.model_fields))


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _name(kind: type[Config]) -> str:
    """What a member of a union is called in a message."""
    return " or ".join(map(repr, kind.names())) or kind.__name__


def _tags(kind: Any) -> set[str]:
    """What pydantic may call a member of a union: its class, or a value of its discriminator."""
    names = kind.names() if _is_config(kind) else ()
    return {getattr(typing.get_origin(kind) or kind, "__name__", ""), *names}


def members_of(kind: Any) -> list[Any]:
    """The members of a union or annotated type; anything else alone."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return [inner for member in typing.get_args(kind) for inner in members_of(member)]
    if origin is typing.Annotated:
        base, *notes = typing.get_args(kind)
        registries = [note.registry for note in notes if hasattr(note, "registry")]
        return list(registries[0].values()) if registries else members_of(base)
    return [kind]


def children_of(kind: Any, step: str) -> list[Any]:
    """What stands below a class's field, or below any key of a mapping or sequence."""
    if _is_config(kind):
        return [kind.model_fields[step].annotation] if step in kind.model_fields else []
    return [typing.get_args(kind)[-1]] if typing.get_args(kind) else []

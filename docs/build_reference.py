"""Write docs/recipe.md from the docstrings of the configuration classes; `--check` only says
whether it is up to date."""

from __future__ import annotations

import enum
import json
import sys
import types
import typing
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from skillweave.config.base import members_of
from skillweave.recipe import RecipeConfig

LONGEST_DEFAULT = 60
PAGE = Path(__file__).with_name("recipe.md")
HEAD = """# Recipe reference

Generated from the configuration classes by `make docs`. A recipe is a YAML mapping; every key below may also be given on the
command line, as `--training.steps 100`. `base: other.yaml` begins from another recipe: mappings merge, later values win, null
takes a mapping away. `skillweave train RECIPE --print-config` prints a recipe with every setting; `skillweave schema` prints a
JSON schema for editors.
"""


def children(kind: object) -> list[type[BaseModel]]:
    """The configuration classes named in an annotation, in order."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    members = members_of(kind)
    parts = typing.get_args(kind) if members == [kind] else members
    return [child for part in parts for child in children(part)]


def describe(kind: object) -> str:
    """An annotation as a person would write it, with links to configuration classes."""
    if (members := members_of(kind)) != [kind]:
        return " or ".join(dict.fromkeys(describe(member) for member in members))
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{getattr(value, 'value', value)}`" for value in parts)
    if origin is dict:
        return f"mapping of {describe(parts[0])} to {describe(parts[1])}"
    if origin is tuple and Ellipsis not in parts:
        return f"[{', '.join(describe(part) for part in parts)}]"
    if origin in (list, tuple):
        return f"list of {describe(parts[0])}"
    if kind is types.NoneType:
        return "null"
    name = getattr(kind, "__name__", str(kind))
    return f"[{name}](#{name.lower()})" if children(kind) else name


def initial(field: FieldInfo) -> str:
    """The default value of a field."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "`null`"
    if isinstance(value, BaseModel):
        changed = value.model_dump(exclude_defaults=True)
        return type(value).__name__ + (f" with `{changed}`" if changed else "")
    if isinstance(value, enum.Enum):
        value = value.value
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else f"`{text[: LONGEST_DEFAULT - 1]}…`"


def section(kind: type[BaseModel]) -> str:
    """One class: its meaning and a table of its fields."""
    rows = []
    for name, field in kind.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {describe(field.annotation)} | {initial(field)} | {meaning} |")
    meaning = " ".join((kind.__doc__ or "").split())
    table = "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])
    return f"## {kind.__name__}\n\n{meaning}\n\n{table}\n"


def build() -> str:
    """The page: every class reachable from a recipe, breadth first."""
    queue: list[type[BaseModel]] = [RecipeConfig]
    for kind in queue:
        for field in kind.model_fields.values():
            queue += [child for child in children(field.annotation) if child not in queue]
    return "\n".join([HEAD, *(section(kind) for kind in queue)])


if __name__ == "__main__":
    page = build()
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text("utf-8") != page:
            sys.exit("docs/recipe.md is not up to date; run `make docs`")
    else:
        PAGE.write_text(page, "utf-8")

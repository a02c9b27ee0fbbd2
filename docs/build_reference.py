"""Write docs/recipe.md from the docstrings of the configuration classes; `--check` only says
whether it is up to date."""

from __future__ import annotations

import re
import sys
import typing
from pathlib import Path

from pydantic import BaseModel

from skillweave.recipe import RecipeConfig

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
    return [child for part in typing.get_args(kind) for child in children(part)]


def describe(kind: object) -> str:
    """An annotation as a person would write it."""
    if isinstance(kind, type):
        return kind.__name__
    text = str(kind).replace("typing.", "").replace("NoneType", "null").replace("None", "null")
    text = re.sub(r"skillweave\.[a-z_.]+\.", "", text)
    text = re.sub(r"Annotated\[(\w+), AfterValidator[^\]]*\]", r"\1", text)
    return text if len(text) <= 60 else text[: text.find("[")] if "[" in text else text[:60]


def section(kind: type[BaseModel]) -> str:
    """One class: its meaning and a table of its fields."""
    rows = []
    for name, field in kind.model_fields.items():
        default = (
            "required"
            if field.is_required()
            else f"`{field.get_default(call_default_factory=True)!r}`"
        )
        if children(field.annotation) or len(default) > 60:
            default = (
                "required"
                if field.is_required()
                else "see there"
                if children(field.annotation)
                else default[:57] + "…`"
            )
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(
            f"| `{name}` | {describe(field.annotation).replace('|', 'or')} | {default} |"
            f" {meaning} |"
        )
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

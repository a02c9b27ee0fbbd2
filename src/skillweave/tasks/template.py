"""Templates: texts with the names of fields in braces."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

from skillweave.config import ConfigError

MASK = "[MASK]"
"""Stands for the mask token in a template."""
MARKS = ("？?", "。.", "！!")
"""Marks of one meaning. A template that writes one after a field adds none to a value that ends
with one."""


@dataclass(frozen=True)
class Template:
    """`parts`: a text, and the name of the field after it; "" for none."""

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str, where: str) -> Template:
        """Of a text with `{field}`; `{{` and `}}` are braces. Raises ConfigError for braces that
        name no field."""
        try:
            found = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(
                f"{where}: {text!r}: {error}; write {{field}}, and {{{{ or }}}} for a brace"
            ) from None
        for _, name, form, conversion in found:
            if name is not None and (form or conversion or not name.strip()):
                raise ConfigError(
                    f"{where}: {text!r}: between braces stands the name of a field alone"
                )
        return cls(tuple((literal, (name or "").strip()) for literal, name, *_ in found))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it names, in order, without repeats."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name))

    def around(self, slot: str, values: Mapping[str, str]) -> tuple[str, str]:
        """The text before and after the only place of a field, with the others filled in."""
        (place,) = (i for i, (_, name) in enumerate(self.parts) if name == slot)
        literal, _ = self.parts[place]
        before = Template((*self.parts[:place], (literal, "")))
        return before.filled(values), Template(self.parts[place + 1 :]).filled(values)

    def filled(self, values: Mapping[str, str]) -> str:
        """The text with all fields filled in."""
        return "".join(self._pieces(values))

    def at_masks(self, values: Mapping[str, str]) -> list[str]:
        """The filled text in parts, between which its own [MASK]s stand; those of values are plain
        text."""
        found = [""]
        for i, piece in enumerate(self._pieces(values)):
            first, *others = [piece] if i % 2 else piece.split(MASK)
            found[-1] += first
            found += others
        return found

    def _pieces(self, values: Mapping[str, str]) -> list[str]:
        """Literal texts and values by turns."""
        pieces: list[str] = []
        for literal, name in self.parts:
            if pieces and any(literal[:1] in m and pieces[-1][-1:] in m for m in MARKS if literal):
                pieces[-1] = pieces[-1][:-1]
            pieces += [literal, values[name] if name else ""]
        return pieces

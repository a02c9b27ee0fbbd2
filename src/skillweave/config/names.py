"""Names that a recipe gives to things, and text of others on a terminal."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

MAX_BYTES = 150
"""A name becomes a part of file names, which have at most 255 bytes."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: object) -> str:
    """A text whose control characters, such as those that move a terminal's cursor, are written as
    `\\u001b`. Line ends and tabs stay. JSON stays the same JSON."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def _check_file_name(name: str) -> str:
    if not name.isprintable() or not name.strip(" "):
        raise ValueError("a name consists of visible characters; choose another")
    if name.startswith(".") or re.search(r"[/\\]", name):
        raise ValueError(
            "a name is used as a file name, so it cannot contain / or \\ or begin with a dot;"
            " choose another"
        )
    if len(name.encode()) > MAX_BYTES:
        raise ValueError(f"a name has at most {MAX_BYTES} bytes; choose a shorter one")
    return name


def _check_name(name: str) -> str:
    from torch import nn  # heavy

    if "." in name or hasattr(nn.ModuleDict, name):
        raise ValueError(
            "a module is saved under this name, so it cannot contain a dot or be a method of"
            " PyTorch's modules; choose another"
        )
    return name


FileName = Annotated[str, AfterValidator(_check_file_name)]
"""A name that is also the name of a file or folder."""

Name = Annotated[FileName, AfterValidator(_check_name)]
"""A name of a task, target or skill: also that of a module."""

"""Cells of a benchmark: each is measured once, stored, and left out when the benchmark runs again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--cells`; `--json` also holds what is measured so far."""
    parser.add_argument(
        "--cells",
        nargs="+",
        metavar="PART",
        help="measure only the cells with one of these in their name",
    )


def measured(
    names: Sequence[str], measure: Callable[[str], dict[str, Any]], options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each chosen cell and what `measure` found, or what the file of `--json` has of it."""
    file, about = options.json, {"threads": options.threads, "steps": options.steps}
    known: dict[str, Any] = {}
    if file and file.exists():
        stored = json.loads(file.read_text("utf-8"))
        known = stored["cells"] if stored.get("options") == about else {}
    for name in names:
        if options.cells and not any(part in name for part in options.cells):
            continue
        if name not in known:
            Console(stderr=True).print(f"measuring {name}")
            known[name] = measure(name)
            if file:
                text = json.dumps({"options": about, "cells": known}, indent=1, ensure_ascii=False)
                part = file.with_suffix(".part")
                part.write_text(text + "\n", "utf-8")
                part.replace(file)
        yield name, known[name]

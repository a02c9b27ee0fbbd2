"""HTML pages that need no network, and the colours and the style that all of them share.

A page extends `page.html.j2`, with its own rules in the block `style`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from skillweave.storage import write_text

PALETTE = {
    "ground": ("#fbfaf8", "#16181c"),
    "card": ("#ffffff", "#1e2127"),
    "ink": ("#22252b", "#e6e6e3"),
    "soft": ("#6b7078", "#9aa0a9"),
    "rule": ("#e5e3de", "#31353d"),
    "track": ("#ecebe7", "#2b2f37"),
    "accent": ("#2f6f8f", "#6fb1d2"),
    "right": ("#2f8f5b", "#63c391"),
    "wrong": ("#b4513d", "#e08a74"),
    "chance": ("#b0862c", "#d9b25c"),
    "baseline": ("#8a4fa3", "#c493da"),
    "text": ("#2f6f8f", "#6fb1d2"),
    "image": ("#c2573f", "#e58c74"),
    "sound": ("#3f8f5f", "#74c497"),
    "video": ("#8a5bb0", "#bd97de"),
    "code": ("#b58a26", "#dcb659"),
    "other": ("#5b6470", "#9aa4b2"),
}
"""Name → colour in light and in dark mode, of pages and plots. A light colour has one dark one."""


def write_page(
    path: Path,
    package: str,
    template: str,
    /,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> None:
    """Write a page from a template of a package. All that is shown is escaped. Raises OSError when
    the page cannot be written."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(one, "") for one in (package, __name__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    write_text(path, environment.get_template(template).render(palette=PALETTE, **values))

"""Inline SVG by hand: sharp at any size, coloured by the page's own style sheet, so dark mode works
and fonts fall back."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from markupsafe import Markup


def tag(name: str, *children: str, **attributes: object) -> str:
    """`<name a="1">children</name>`; underscores become hyphens (`stroke_width`), a trailing one is
    dropped (`class_`)."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{pairs}>{''.join(children)}</{name}>"


def text(content: str, x: float, y: float, anchor: str = "start", **attributes: object) -> str:
    """A line of text whose baseline starts, centres (`middle`) or ends (`end`) at x, y."""
    return tag("text", escape(content), x=x, y=y, text_anchor=anchor, **attributes)


def picture(width: float, height: float, *children: str, label: str) -> Markup:
    """A picture that scales with the page. `label` is read out by screen readers."""
    box = f"0 0 {_text(width)} {_text(height)}"
    return Markup(
        tag(
            "svg",
            *children,
            viewBox=box,
            xmlns="http://www.w3.org/2000/svg",
            role="img",
            aria_label=label,
        )
    )


def line(points: Sequence[tuple[float, float]], **attributes: object) -> str:
    """A polyline."""
    return tag(
        "polyline",
        points=" ".join(f"{_text(x)},{_text(y)}" for x, y in points),
        fill="none",
        **attributes,
    )


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values that lie within low and high."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** len(str(int(1 / rough))) if rough < 1 else 10.0 ** (len(str(int(rough))) - 1)
    unit = 1 / power if rough < 1 else power
    step = min((unit * m for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    first = -(-low // step)
    return [
        round((first + i) * step, 10) for i in range(int((high - first * step) / step + 1e-9) + 1)
    ]


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

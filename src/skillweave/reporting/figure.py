"""What all plots share: colours, fonts, the arrangement of panels, and SVG output.

Importing this module imports matplotlib, so import it only where a plot is drawn.
"""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from html import escape, unescape
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.patches import Rectangle

from skillweave.pages import PALETTE
from skillweave.storage import write_text

COLOURS = {name: light for name, (light, _) in PALETTE.items()}

SERIES = ("text", "image", "sound", "video", "code", "other")
"""Names of the colours of the first, second, ... line or band of a plot."""

CJK_FONTS = {"Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC"}
CJK_FONTS |= {"Noto Sans SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei"}
FONTS = ["DejaVu Sans", *sorted(CJK_FONTS & {*get_font_names()})]
"""Fonts that measure text: one that matplotlib has, then those for Chinese that are installed."""

STYLE: dict[Any, Any] = {
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(color=[COLOURS[name] for name in SERIES]),
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.family": [*FONTS, "sans-serif"],
    "font.sans-serif": FONTS,
    "font.size": 11,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.15,  # the font of a browser may be wider
    "svg.fonttype": "none",  # text stays text, so a browser finds a font for every script
    "svg.hashsalt": "skillweave",  # the same plot gives the same file
    "text.color": COLOURS["ink"],
    "text.parse_math": False,  # a name may contain $
}

_DARK_RULES = "".join(
    f'[style*="{use}: {light}"] {{ {use}: {dark} !important }}\n'
    for use in ("fill", "stroke")
    for light, dark in PALETTE.values()
)
DARK_MODE_CSS = Markup(f"@media (prefers-color-scheme: dark) {{\n{_DARK_RULES}}}")
"""Style sheet with the dark colours of plots. Its rules select elements by the inline style that
matplotlib gives them."""

TOOLTIP = "tooltip: "
_GROUP_ID = re.compile(rf"""<g id=(["'])(?:{TOOLTIP}(.*?)|.*?)\1""", re.DOTALL)


@contextmanager
def style() -> Generator[None]:
    """Apply `STYLE` inside a block, or as decorator of a function that draws."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # a missing glyph or bold face affects only measured widths: the SVG holds the text itself
        warnings.filterwarnings("ignore", "Glyph")
        fonts = logging.getLogger("matplotlib.font_manager")
        level = fonts.level
        fonts.setLevel(logging.ERROR)
        try:
            yield
        finally:
            fonts.setLevel(level)


def new_figure(
    label: str,
    size: tuple[float, float],
    panels: int = 1,
    columns: int = 1,
    gap: tuple[float, float] = (0, 0),
) -> tuple[Figure, list[Axes]]:
    """A figure with `panels` axes in rows of at most `columns`.

    `size`: width and height of each axes, and `gap` between them, in pixels. Labels and titles
    extend beyond the axes; the saved picture includes them. `label` describes the figure to screen
    readers.
    """
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    (width, height), (gap_x, gap_y) = size, gap
    pixels = columns * (width + gap_x) - gap_x, rows * (height + gap_y) - gap_y
    figure = Figure(figsize=(pixels[0] / 72, pixels[1] / 72))
    figure.set_label(label)
    figure.subplots_adjust(0, 0, 1, 1, wspace=gap_x / width, hspace=gap_y / height)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    for panel in axes:
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0, pad=7, labelcolor=COLOURS["soft"])
    return figure, axes


def name_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str], **names: Any) -> None:
    """Make the axes a matrix whose cells have size 1, with names at its left and above it.

    `names`: properties of the names above, such as `rotation`.
    """
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    axes.xaxis.tick_top()
    axes.set_xticks([i + 0.5 for i in range(len(columns))], columns, **names)
    axes.set_yticks([i + 0.5 for i in range(len(rows))], rows, color=COLOURS["ink"])


def add_cell(
    axes: Axes, row: int, column: int, told: str = "", width: float = 1, **look: Any
) -> None:
    """Fill a cell of a matrix. `told`: text under the pointer; `width` in cells."""
    corner = column + 0.03, row + 0.05
    axes.add_patch(Rectangle(corner, width - 0.06, 0.9, lw=0, gid=TOOLTIP + told, **look))


def to_svg(figure: Figure) -> Markup:
    """The figure as `<svg>` element for an HTML page, with its label for screen readers.

    An artist whose `gid` is `TOOLTIP` and a text shows the text under the pointer.
    """
    return Markup(_render(figure))


def write_svg(figure: Figure, path: str | Path) -> None:
    """Write the figure as an SVG file with a background, in light and dark colours.

    Raises OSError when it cannot be written.
    """
    svg = _render(figure, facecolor=COLOURS["ground"])
    write_text(Path(path), svg.replace(">", f"><style>{DARK_MODE_CSS}</style>", 1))


@style()
def _render(figure: Figure, **options: Any) -> str:
    file = io.StringIO()
    without = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=without, **options)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', svg, count=2)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(str(figure.get_label()))}"', 1)
    # ids would be repeated among the plots of a page; those of tooltips become titles
    return _GROUP_ID.sub(lambda match: f"<g{_title(match[2])}", svg)


def _title(attribute: str | None) -> str:
    """The title of a group, from the text of an attribute, which has other rules for quotes."""
    return f"><title>{escape(unescape(attribute))}</title" if attribute else ""

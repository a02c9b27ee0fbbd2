"""A figure becomes the same SVG each time: text as text, with a description, in both modes."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from skillweave.reporting.figure import (
    DARK_MODE_CSS,
    PALETTE,
    TOOLTIP,
    new_figure,
    style,
    to_svg,
    write_svg,
)

SVG = "{http://www.w3.org/2000/svg}"


@style()
def drawn(text: str = "<b> & 图像 $x$") -> Figure:
    figure, (axes,) = new_figure(text, (100, 50))
    axes.plot([0, 1], [0, 1], gid=f'{TOOLTIP}"{text}"')
    axes.set_title(text)
    return figure


def test_text_is_escaped_and_stays_text() -> None:
    root = ElementTree.fromstring(to_svg(drawn()))
    assert root.get("role") == "img" and root.get("aria-label") == "<b> & 图像 $x$"
    assert "<b> & 图像 $x$" in [text.text for text in root.iter(f"{SVG}text")]


def test_an_artist_has_a_text_under_the_pointer() -> None:
    root = ElementTree.fromstring(to_svg(drawn()))
    (group,) = [group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]
    assert group.find(f"{SVG}title").text == '"<b> & 图像 $x$"'
    assert group.find(f"{SVG}path") is not None
    assert not any("id" in group.keys() for group in root.iter(f"{SVG}g"))  # noqa: SIM118


def test_the_same_figure_gives_the_same_file_without_a_date(tmp_path: Path) -> None:
    write_svg(drawn(), tmp_path / "a.svg")
    write_svg(drawn(), tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    assert "<metadata" not in text and "<dc:date" not in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.svg", "b.svg"]


def test_a_file_has_a_background_and_both_modes(tmp_path: Path) -> None:
    write_svg(drawn(), tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.find(f"{SVG}style").text == DARK_MODE_CSS
    backgrounds = [path.get("style") for path in root.iter(f"{SVG}path")]
    assert f"fill: {PALETTE['ground'][0]}" in backgrounds[0]


def test_every_colour_of_a_plot_has_one_dark_colour() -> None:
    """The style sheet finds a dark colour by the light one."""
    assert len(set(PALETTE.values())) == len({light for light, _ in PALETTE.values()})


@pytest.mark.parametrize(("panels", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (7, 3, 3)])
def test_panels_stand_in_rows_and_have_the_given_size(panels, rows, columns) -> None:
    figure, axes = new_figure("", (100, 50), panels, 3, (10, 20))
    assert tuple(figure.get_size_inches() * 72) == pytest.approx(
        (columns * 110 - 10, rows * 70 - 20)
    )
    assert len(axes) == panels
    for one in axes:
        assert one.bbox.size * 72 / figure.dpi == pytest.approx((100, 50))


@pytest.mark.parametrize(
    "module", ["skillweave.reporting.console", "skillweave.reporting.report", "skillweave.cli"]
)
def test_only_drawing_imports_matplotlib(module: str) -> None:
    code = f"import sys, {module}; print('matplotlib' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"

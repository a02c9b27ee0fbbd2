"""The heat map of interference shows each value with its interval, pale where that holds 0."""

import pytest
from matplotlib.colors import to_hex

from skillweave.reporting.plots.figure import COLOURS, TOOLTIP, to_svg
from skillweave.reporting.plots.interference import HARMS, HELPS, interference_heat_map

SQUARE = [[[1.0, 1.0], [-0.7, -0.3]], [[-0.1, 0.4], [1.0, 1.0]]]
FOUND = {
    "tasks": ["text_to_image", "<b> 情感"],
    "blocks": [
        {
            "block": "encoder.blocks.0.feed_forward",
            "values": [[1.0, -0.5], [0.2, 1.0]],
            "intervals": SQUARE,
            "pooled": [[1.0, -25.0], [None, 1.0]],
            "pooled_intervals": [[[1.0, 1.0], [None, None]], [[None, None], [1.0, 1.0]]],
            "shared": [[9000, 9000], [0, 9000]],
        }
    ],
}


def test_cells_have_colour_strength_and_interval() -> None:
    values, pooled = interference_heat_map(FOUND).axes
    assert [to_hex(cell.get_facecolor()) for cell in values.patches] == [HELPS, HARMS, HELPS, HELPS]
    assert [cell.get_alpha() for cell in values.patches] == pytest.approx(
        [0.75, 0.375, 0.05, 0.75]
    )  # |value| up to 1, times 0.75, or 0.25 where the interval holds 0
    assert [(text.get_text(), text.get_color()) for text in values.texts] == [
        ("1.00", COLOURS["ink"]),
        ("-0.50", COLOURS["ink"]),
        ("-0.70 … -0.30", COLOURS["ink"]),
        ("0.20", COLOURS["soft"]),
        ("-0.10 … 0.40", COLOURS["soft"]),
        ("1.00", COLOURS["ink"]),
    ]
    assert [text.get_text() for text in pooled.texts] == ["1.00", "-25", "–", "1.00"]
    assert [cell.get_alpha() for cell in pooled.patches] == pytest.approx([0.75, 0.25, 0.75])


def test_names_and_texts_under_the_pointer() -> None:
    figure = interference_heat_map(FOUND)
    values, pooled = figure.axes
    assert values.get_title("left") == "encoder.blocks.0.feed_forward\nI"
    assert pooled.get_title("left") == "ratio of means"
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == FOUND["tasks"]
    assert [label.get_text() for label in values.get_yticklabels()] == FOUND["tasks"]
    told = [text.get_gid().removeprefix(TOOLTIP) for text in pooled.texts]
    assert told[1:3] == [
        "<b> 情感 on text_to_image: -25, 9,000 shared parameters",
        "text_to_image on <b> 情感: no shared parameter",
    ]
    assert "&lt;b&gt; 情感" in to_svg(figure)


def test_cells_are_as_wide_as_their_intervals() -> None:
    block = FOUND["blocks"][0]
    wide = [[[-12345.0, -1234.0]] * 2] * 2
    width = interference_heat_map(FOUND).axes[0].bbox.width
    changed = {**FOUND, "blocks": [{**block, "intervals": wide}]}
    assert interference_heat_map(changed).axes[0].bbox.width > width

"""Plots show every value they are given, also with names that look like markup."""

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from skillweave.analysis.experts import Use
from skillweave.reporting.figure import COLOURS, SERIES, TOOLTIP, to_svg
from skillweave.reporting.plots import (
    HARMS,
    HELPS,
    LAYERS_PER_ROW,
    confusion_matrix,
    expert_heat_maps,
    experts_over_training,
    interference_heat_map,
    learning_curves,
    line_plot,
    loss_curves,
)


def told(artist: Artist) -> str:
    """The text under the pointer."""
    return (artist.get_gid() or "").removeprefix(TOOLTIP)


LINE = {"kind": "validation", "task": "t", "loss": 2.0}
RUNS = {
    "with": [
        {**LINE, "step": 10, "metric": {"accuracy": 0.5}},
        {**LINE, "step": 20, "metric": {"accuracy": 0.8}},
    ],
    "without": [
        {**LINE, "step": 10, "metric": {"accuracy": 0.4}},
        {"kind": "train", "step": 1, "task": "t", "loss": 9},
    ],
}


def lines(figure: Figure) -> dict[str, list]:
    """Label of a line → its points."""
    (axes,) = figure.axes
    handles, labels = axes.get_legend_handles_labels()
    return {
        label: list(zip(*line.get_data(), strict=True))
        for line, label in zip(handles, labels, strict=True)
    }


def dashed(figure: Figure) -> list[float]:
    return [line.get_ydata()[0] for line in figure.axes[0].lines if line.is_dashed()]


def test_learning_curves_overlay_runs() -> None:
    (figure,) = learning_curves(RUNS, {"t": {"chance": {"accuracy": 0.25}, "pool": None}})
    assert lines(figure) == {"with": [(10, 0.5), (20, 0.8)], "without": [(10, 0.4)]}
    assert dashed(figure) == [0.25]
    assert figure.axes[0].get_title("left") == "t · accuracy"
    assert [told(line) for line in figure.axes[0].lines if told(line)] == [
        "with · step 10 · 0.5",
        "with · step 20 · 0.8",
        "without · step 10 · 0.4",
    ]


def test_chance_of_another_pool_is_not_drawn() -> None:
    (figure,) = learning_curves(RUNS, {"t": {"chance": {"accuracy": 0.25}, "pool": 8}})
    assert dashed(figure) == []


def test_retrieval_shows_recall_at_10_and_no_metric_the_loss() -> None:
    metrics = {"recall_at_1": 0.1, "recall_at_10": 0.3}
    runs = {"run": [{**LINE, "step": 1, "metric": metrics}, {**LINE, "step": 1, "task": "u"}]}
    titles = [figure.axes[0].get_title("left") for figure in learning_curves(runs, {})]
    assert titles == ["t · recall@10", "u · loss"]


def test_a_curve_leaves_out_what_is_not_finite() -> None:
    line = {**LINE, "step": 1, "loss": float("nan"), "metric": {}}
    assert learning_curves({"run": [line]}, {}) == []


@pytest.mark.parametrize(
    "points", [[(1, 0.0)], [(0, 0.5)], [(100, 0.031), (600, 0.038)], [(5, 7.0), (200_000, 900.0)]]
)
def test_all_values_lie_inside_the_axes(points) -> None:
    figure = line_plot("t", {"run": points})
    (axes,) = figure.axes
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left == 0 <= low and left < right
    for step, value in points:
        assert left <= step <= right and low <= value <= high
    to_svg(figure)


def test_losses_of_training_and_validation() -> None:
    found = [
        {"kind": kind, "task": "t", "step": step, "loss": loss}
        for step in (10, 20)
        for kind, loss in (("train", 1.0 / step), ("validation", 2.0 / step), ("experts", 3.0))
    ]
    found.append({"kind": "validation", "task": "t", "step": 30, "loss": None})
    (figure,) = loss_curves(found)
    assert lines(figure) == {
        "training": [(10, 0.1), (20, 0.05)],
        "validation": [(10, 0.2), (20, 0.1)],
    }
    long = [{"kind": "train", "task": "t", "step": i, "loss": 1.0} for i in range(1000)]
    assert len(loss_curves(long)[0].axes[0].lines) == 1


def test_confusions_of_the_largest_classes() -> None:
    counts = np.diag(np.arange(1, 31))
    counts[29, 28] = 70
    figure = confusion_matrix("t", [f"<{i}>" for i in range(30)], counts)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"<{i}>" for i in range(10, 30)
    ]
    cells = {told(patch): patch.get_alpha() for patch in axes.patches}
    assert cells["<29> taken for <28>: 70 of 100"] == pytest.approx(0.15 + 0.6 * 0.7)
    assert cells["<29> taken for <29>: 30 of 100"] == pytest.approx(0.15 + 0.6 * 0.3)
    assert len(cells) == 400


def ticks(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def test_a_cell_for_every_share_and_a_track_for_every_row() -> None:
    rows = {
        (0, "<b>"): [0.5, 0.5, 0],
        (0, "b"): [0, 0, 1],
        (1, "<b>"): [0.2, 0.8, 0],
        (1, "b"): [0, 0, 1],
    }
    uses = [
        Use("encoder", layer, "qkv", "task", task, "text", dict(zip("012", row, strict=True)))
        for (layer, task), row in rows.items()
    ]
    (figure,) = expert_heat_maps(uses)
    assert figure.get_label() == "Experts of encoder.qkv (route task) by task, span and layer"
    patches = [patch for axes in figure.axes for patch in axes.patches]
    assert sum(not told(patch) for patch in patches) == 2 * 2
    cells = [patch for patch in patches if told(patch)]
    assert [cell.get_alpha() for cell in cells] == pytest.approx([0.55, 0.55, 1, 0.28, 0.82, 1])
    assert told(cells[3]) == "<b> · text, layer 1, expert 0: 0.200"
    assert [axes.get_title("left") for axes in figure.axes] == ["layer 0", "layer 1"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "<b> · text", "b · text"
    ]  # fmt: skip
    assert [ticks(axes) for axes in figure.axes] == [["0", "1", "2"]] * 2


def test_many_layers_stand_in_rows() -> None:
    def size(layers: int) -> tuple[float, float]:
        shares = [{"0": layer / layers, "1": 1 - layer / layers} for layer in range(layers)]
        uses = [
            Use("encoder", layer, "qkv", "task", "a", "text", shares[layer])
            for layer in range(layers)
        ]
        return expert_heat_maps(uses)[0].get_size_inches()

    one, two = size(LAYERS_PER_ROW), size(LAYERS_PER_ROW + 1)
    assert one[0] == two[0] and two[1] > 2 * one[1]


@pytest.mark.parametrize(
    ("experts", "rotations"),
    [
        (["0", "1"], [0] * 2),
        (["text", "image", "sound", "video", "code"], [90] * 5),
        ([str(expert) for expert in range(20)], [90] * 20),
    ],
)
def test_names_of_experts_stand_upright_where_they_are_too_wide(experts, rotations) -> None:
    uses = [Use("encoder", 0, "qkv", "task", "a", "text", dict.fromkeys(experts, 1 / len(experts)))]
    (axes,) = expert_heat_maps(uses)[0].axes
    assert [label.get_rotation() for label in axes.get_xticklabels()] == rotations


def line(step: int, layer: int, share: float, **drift: float) -> dict:
    utilisation = {"0": share, "1": 1 - share}
    return {
        "step": step,
        "kind": "experts",
        "part": "encoder",
        "layer": layer,
        "site": "qkv",
        "utilisation": utilisation,
        "entropy": share,
        "drift": drift,
    }


def curves(figure: Figure) -> dict[str, list]:
    """Name in the legend → the points of its line."""
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    handles, _ = axes.get_legend_handles_labels()
    return {
        name: [pytest.approx(point) for point in zip(*handle.get_data(), strict=True)]
        for name, handle in zip(names, handles, strict=True)
    }


def test_curves_are_means_over_layers() -> None:
    lines = [
        line(5, 0, 0.2),
        line(5, 1, 0.4),
        line(10, 0, 0.5, a=0.1, b=0.2),
        line(10, 1, 0.7, a=0.3, b=0.4),
    ]
    entropy, drift, utilisation = experts_over_training(
        [{"kind": "train", "step": 5, "task": "a", "loss": 1.0}, *lines]
    )
    assert curves(entropy) == {"encoder.qkv": [(5, 0.3), (10, 0.6)]}
    assert curves(drift) == {"a": [(10, 0.2)], "b": [(10, 0.3)]}
    assert [axes.get_title("left") for axes in utilisation.axes] == ["layer 0", "layer 1"]
    assert [told(band) for axes in utilisation.axes for band in axes.collections] == [
        "expert 0: 0.200 → 0.500", "expert 1: 0.800 → 0.500", "expert 0: 0.400 → 0.700", "expert 1: 0.600 → 0.300"
    ]  # fmt: skip
    assert "expert 0: 0.200 → 0.500" in to_svg(utilisation)


def test_a_legend_names_experts_where_each_has_a_colour() -> None:
    few, many = (dict.fromkeys(map(str, range(n)), 1 / n) for n in (len(SERIES), len(SERIES) + 1))
    for shares, shown in ((few, True), (many, False)):
        utilisation = experts_over_training([{**line(5, 0, 0.2), "utilisation": shares}])[-1]
        assert (utilisation.axes[0].get_legend() is not None) == shown


def test_one_validation_has_no_drift_and_none_has_nothing() -> None:
    assert len(experts_over_training([line(5, 0, 0.2)])) == 2
    validation = {"kind": "validation", "step": 1, "task": "a", "loss": 1.0, "metric": {}}
    assert experts_over_training([validation]) == []


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
    assert [(text.get_text(), text.get_color()) for text in values.texts if text.get_text()] == [
        ("1.00", COLOURS["ink"]),
        ("-0.50", COLOURS["ink"]),
        ("-0.70 … -0.30", COLOURS["ink"]),
        ("0.20", COLOURS["soft"]),
        ("-0.10 … 0.40", COLOURS["soft"]),
        ("1.00", COLOURS["ink"]),
    ]
    shown = [text.get_text() for text in pooled.texts if text.get_text()]
    assert shown == ["1.00", "-25", "–", "1.00"]
    assert [cell.get_alpha() for cell in pooled.patches] == pytest.approx([0.75, 0.25, 0.75])


def test_names_and_texts_under_the_pointer() -> None:
    figure = interference_heat_map(FOUND)
    values, pooled = figure.axes
    assert values.get_title("left") == "encoder.blocks.0.feed_forward\nI"
    assert pooled.get_title("left") == "ratio of means"
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == FOUND["tasks"]
    assert [label.get_text() for label in values.get_yticklabels()] == FOUND["tasks"]
    assert [told(text) for text in pooled.texts if text.get_text()][1:3] == [
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

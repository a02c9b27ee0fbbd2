"""Curves show every finite value of every run, and chance where it is the same."""

import pytest
from matplotlib.figure import Figure

from skillweave.reporting.plots.figure import TOOLTIP, to_svg
from skillweave.reporting.plots.learning_curves import learning_curves, line_plot

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
    points = [line.get_gid() for line in figure.axes[0].lines if line.get_gid()]
    assert points == [
        f"{TOOLTIP}with · step 10 · 0.5",
        f"{TOOLTIP}with · step 20 · 0.8",
        f"{TOOLTIP}without · step 10 · 0.4",
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

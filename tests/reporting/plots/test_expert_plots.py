"""Plots of experts show every share, also with names that look like markup."""

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skillweave.analysis.experts import Use
from skillweave.reporting.plots.experts import (
    LAYERS_PER_ROW,
    expert_heat_maps,
    experts_over_training,
)
from skillweave.reporting.plots.figure import SERIES, TOOLTIP, to_svg


def told(artist) -> str:
    return (artist.get_gid() or "").removeprefix(TOOLTIP)


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
        Use("qkv", layer, "task", task, "text", dict(zip("012", row, strict=True)))
        for (layer, task), row in rows.items()
    ]
    (figure,) = expert_heat_maps(uses)
    assert figure.get_label() == "Experts of qkv (route task) by task, span and layer"
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
        uses = [Use("qkv", layer, "task", "a", "text", shares[layer]) for layer in range(layers)]
        return expert_heat_maps(uses)[0].get_size_inches()

    one, two = size(LAYERS_PER_ROW), size(LAYERS_PER_ROW + 1)
    assert one[0] == two[0] and two[1] > 2 * one[1]


@pytest.mark.parametrize(
    ("experts", "rotation", "shown"), [(("0", "1"), 0, 2), (("text", "image", "sound", "video", "code"), 90, 5), (tuple(map(str, range(20))), 0, 0)]
)  # fmt: skip
def test_names_of_experts_stand_upright_or_not_at_all_where_they_are_too_wide(
    experts, rotation, shown
) -> None:
    uses = [Use("qkv", 0, "task", "a", "text", dict.fromkeys(experts, 1 / len(experts)))]
    (axes,) = expert_heat_maps(uses)[0].axes
    assert sum(bool(name) for name in ticks(axes)) == shown
    assert axes.get_xticklabels()[0].get_rotation() == rotation


def line(step: int, layer: int, share: float, **drift: float) -> dict:
    utilisation = {"0": share, "1": 1 - share}
    return {
        "step": step,
        "kind": "experts",
        "place": "qkv",
        "layer": layer,
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
    assert curves(entropy) == {"qkv": [(5, 0.3), (10, 0.6)]}
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

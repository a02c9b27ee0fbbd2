"""Pictures of experts hold what they are given, and nothing that a name could smuggle in."""

from xml.etree import ElementTree

from skillweave.analysis.experts import Use
from skillweave.reporting.expert_pictures import ACROSS, Panel, heat_maps, over_training


def shapes(panel: Panel, tag: str, kind: str) -> list[ElementTree.Element]:
    """Elements of a class, from a picture that must be well-formed."""
    found = ElementTree.fromstring(panel.picture).iter(f"{{http://www.w3.org/2000/svg}}{tag}")
    return [element for element in found if kind in element.get("class", "").split()]


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
    (panel,) = heat_maps(uses)
    assert panel.title == "qkv · route task"
    assert len(shapes(panel, "rect", "track")) == 2 * 2
    assert [float(cell.get("fill-opacity")) for cell in shapes(panel, "rect", "share")] == [
        0.55,
        0.55,
        1,
        0.28,
        0.82,
        1,
    ]


def test_many_layers_stand_in_bands() -> None:
    def panel(layers: int) -> Panel:
        shares = [{"0": layer / layers, "1": 1 - layer / layers} for layer in range(layers)]
        return heat_maps(
            [Use("qkv", layer, "task", "a", "text", shares[layer]) for layer in range(layers)]
        )[0]

    one, two = panel(ACROSS), panel(ACROSS + 1)
    assert one.width == two.width
    heights = [
        float(ElementTree.fromstring(p.picture).get("viewBox").split()[3]) for p in (one, two)
    ]
    assert heights[1] == 2 * heights[0]


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


def test_curves_are_means_over_layers() -> None:
    lines = [
        line(5, 0, 0.2),
        line(5, 1, 0.4),
        line(10, 0, 0.5, a=0.1, b=0.2),
        line(10, 1, 0.7, a=0.3, b=0.4),
    ]
    entropy, drift, utilisation = over_training(
        [{"kind": "train", "step": 5, "task": "a", "loss": 1.0}, *lines]
    )
    assert (
        entropy.names == ["qkv"]
        and "qkv · step 5 · 0.3<" in entropy.picture
        and "qkv · step 10 · 0.6<" in entropy.picture
    )
    assert (
        drift.names == ["a", "b"]
        and "a · step 10 · 0.2<" in drift.picture
        and "b · step 10 · 0.3<" in drift.picture
    )
    bands = shapes(utilisation, "polygon", "band")
    assert [band[0].text for band in bands] == [
        "expert 0: 0.200 → 0.500", "expert 1: 0.800 → 0.500", "expert 0: 0.400 → 0.700", "expert 1: 0.600 → 0.300"
    ]  # fmt: skip


def test_one_validation_has_no_drift_and_none_has_nothing() -> None:
    assert len(over_training([line(5, 0, 0.2)])) == 2
    assert (
        over_training([{"kind": "validation", "step": 1, "task": "a", "loss": 1.0, "metric": {}}])
        == []
    )

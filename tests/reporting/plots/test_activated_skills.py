"""Pillars stand where a task activates them."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tiny_run import make_run

from skillweave.config.encoder import SparseConfig
from skillweave.inference.api import open_run
from skillweave.model.config import ModelConfig
from skillweave.reporting.plots.activated_skills import activated_skills
from skillweave.reporting.plots.figure import TOOLTIP


def pillars(figure: Figure) -> list[str]:
    """The texts under the pointer of all pillars."""
    gids = [patch.get_gid() for patch in figure.axes[0].patches]
    return [gid.removeprefix(TOOLTIP) for gid in gids if gid]


def test_pillars_of_a_decoder_with_words_of_its_own() -> None:
    """Its words are no stream's."""
    config = ModelConfig.parse({"preset": "s2t-small"})
    assert pillars(activated_skills(config, {"lm": 1}, 2)) == ["shared: activated"]


def test_pillars_stand_where_a_task_activates_them(tmp_path: Path) -> None:
    config = open_run(make_run(tmp_path))[0].config
    counts = dict.fromkeys(config.tasks, 5_000_000)
    figure = activated_skills(config, counts, 20_000_000)
    shown = pillars(figure)
    # Five tasks, three of them with two skills, over five skills.
    assert sum(text.endswith(": activated") for text in shown) == 8
    assert sum(text.endswith(": not activated") for text in shown) == 17
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(config.tasks)
    assert {label.get_text() for label in axes.get_xticklabels()} == {
        text.partition(":")[0] for text in shown
    }
    assert [text.get_text() for text in axes.texts] == ["5.0M of 20.0M · 25%"] * 5
    bars = [patch.get_width() for patch in axes.patches if not patch.get_gid()]
    assert bars[1::2] == pytest.approx([width / 4 for width in bars[::2]])
    dense = config.model_copy(
        update={"encoder": config.encoder.model_copy(update={"sparse": SparseConfig()})}
    )
    assert pillars(activated_skills(dense, counts, 20_000_000)) == ["shared: activated"] * 5

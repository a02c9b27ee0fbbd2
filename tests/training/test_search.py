"""The learning rate finder and sweeps."""

import json
import math
from pathlib import Path

import pytest
from training_recipes import recipe

from skillweave import cli
from skillweave.config import ConfigError
from skillweave.recipe import RecipeConfig
from skillweave.training import sweep as search
from skillweave.training.learning_rates import find_learning_rate, suggest
from skillweave.training.sweep import Varied, sweep

RATE = "training.optimizer.learning_rate"


def test_the_suggestion_is_where_the_loss_falls_fastest():
    """A loss that falls as a logistic function around 1e-3 and rises again from 1 on."""
    rates = [10 ** (x / 10) for x in range(-60, 11)]
    losses = [1 - 0.5 / (1 + (1e-3 / r) ** 2) + 0.4 * r for r in rates]
    assert suggest(rates, losses) == pytest.approx(1e-3, rel=0.3)


def test_a_loss_that_never_falls_has_no_suggestion():
    rates = [10.0**x for x in range(-6, 1)]
    with pytest.raises(ConfigError, match="does not fall"):
        suggest(rates, [1.0 + x for x in range(7)])
    with pytest.raises(ConfigError, match="exploded after 3 steps"):
        suggest(rates[:3], [1.0, 0.9, 0.8])


def test_rates_grow_and_nothing_is_kept(tmp_path):
    given = recipe(tmp_path / "run", ("text_classification", "text_to_image"))
    found = find_learning_rate(given, 1e-5, 1.0, 30)
    assert found.rates[0] == pytest.approx(1e-5) and len(found.rates) <= 30
    ratios = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert ratios == pytest.approx([(1e5) ** (1 / 29)] * len(ratios))
    assert found.losses[0] == 1 and found.rates[0] <= found.suggestion <= found.rates[-1]
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="0 < least < most"):
        find_learning_rate(given, 1e-2, 1e-3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{RATE}=1e-5..1e-3:log", Varied(RATE, 1e-5, 1e-3, True)),
        ("a.b=2..8", Varied("a.b", 2, 8)),
        ("a.b = 0..0.5", Varied("a.b", 0, 0.5)),
        ("a.b=[pre, post]", Varied("a.b", choices=("pre", "post"))),
    ],
)
def test_ranges(text, expected):
    assert Varied.parse(text) == expected


@pytest.mark.parametrize("text", ["a", "a=1", "a=3..2", "a=0..1:log", "a=x..y", "a=[1]", "=1..2"])
def test_wrong_ranges_are_told(text):
    with pytest.raises(ConfigError, match="write KEY=LOW"):
        Varied.parse(text)


def reader(folder: Path):
    """Settings as the command reads them."""
    data = recipe(folder / "run", log_every=4).model_dump(mode="json")

    def read(changes):
        content = json.loads(json.dumps(data))
        for change in changes:
            key, _, value = change.partition("=")
            place = content
            *path, last = key.split(".")
            for part in path:
                place = place[part]
            place[last] = float(value) if key == RATE else value
        return RecipeConfig.parse(content)

    return read


def test_an_interrupted_sweep_goes_on(tmp_path, monkeypatch):
    varied, read = [Varied(RATE, 1e-4, 1e-2, True)], reader(tmp_path)
    usual, calls = search.train, []

    def interrupted(given, **options):
        calls.append(given.folder.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        if len(calls) == 4:
            raise ConfigError("cannot be trained")
        return usual(given, **options)

    monkeypatch.setattr(search, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(read, varied, tmp_path / "sweep", 3)
    found = sweep(read, varied, tmp_path / "sweep", 3)
    # the interrupted trial went on in its folder with its settings
    assert calls == ["trial-0000", "trial-0001", "trial-0001", "trial-0003"]
    assert [one.state for one in found] == ["complete", "complete", "fail"]
    assert found[0].value >= found[1].value and found[2].reason == "cannot be trained"
    rates = [one.settings[RATE] for one in found]
    assert len({*rates}) == 3 and all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert sweep(read, varied, tmp_path / "sweep", 3) == found and len(calls) == 4
    with pytest.raises(ConfigError, match="varied something else"):
        sweep(read, [Varied("training.steps", 1, 2)], tmp_path / "sweep", 3)
    assert all(math.isfinite(one.value) for one in found[:2])


def test_the_command_writes_a_page(tmp_path, capsys):
    file = tmp_path / "recipe.json"
    content = recipe(tmp_path / "run").model_dump(mode="json", exclude_defaults=True)
    file.write_text(json.dumps(content))
    out, table = tmp_path / "sweep", tmp_path / "trials.json"
    words = ["sweep", str(file), "--vary", f"{RATE}=1e-4..1e-2:log", "--trials", "2"]
    assert cli.main([*words, "--out", str(out), "--json", str(table), "training.steps=2"]) == 0
    assert len(json.loads(table.read_text())) == 2
    page = (out / "sweep.html").read_text()
    assert page.count("<svg") == 2 and RATE in page
    wrong = ["sweep", str(file), "--vary", "training.nothing=1..2", "--out", str(tmp_path / "no")]
    assert cli.main(wrong) == 2
    assert "nothing" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_the_command_suggests_a_rate(tmp_path, capsys):
    given = recipe(tmp_path / "run", ("text_classification", "text_to_image"))
    file, plot = tmp_path / "recipe.json", tmp_path / "rates.svg"
    file.write_text(json.dumps(given.model_dump(mode="json", exclude_defaults=True)))
    words = ["lr-find", str(file), "--steps", "30", "--from", "1e-5", "--out", str(plot)]
    assert cli.main(words) == 0
    assert "--training.optimizer.learning_rate" in capsys.readouterr().out
    assert plot.read_text().startswith("<svg")

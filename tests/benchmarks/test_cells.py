"""Studies run what is missing and no more, and say what went wrong."""

import argparse
import math
from pathlib import Path

import cells
import pytest
import yaml
from cells import Cell


def options(folder: Path, **changes) -> argparse.Namespace:
    given = cells.arguments("", str(folder), ["dense", "token"]).parse_args([])
    return argparse.Namespace(**{**vars(given), "parallel": 1, **changes})


def cell(folder: Path, name: str, steps: int = 3) -> Cell:
    """Its call is the name of the file that it is to write, see `pretend`."""
    return Cell(
        folder / name, [["make", str(folder / f"{name}.json")]], folder / f"{name}.json", steps
    )


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files written in place of calls of skillweave; a name with `bad` in it fails."""
    made: list[str] = []

    def pretend(self: cells.Runner, arguments: list[str], log: Path) -> bool:
        file = Path(arguments[1])
        made.append(file.stem)
        log.write_text("said why", "utf-8")
        if "bad" not in file.stem:
            file.write_text("{}", "utf-8")
        return "bad" not in file.stem

    monkeypatch.setattr(cells.Runner, "call", pretend)
    return made


def test_what_is_there_is_not_run_again(tmp_path: Path, called: list[str]) -> None:
    chains = [[cell(tmp_path, "a"), cell(tmp_path, "b")], [cell(tmp_path, "c")]]
    (tmp_path / "a.json").write_text("{}", "utf-8")
    written = []
    assert cells.study(chains, options(tmp_path), lambda: written.append(True)) == 0
    assert called == ["b", "c"] and written == [True]


def test_what_follows_a_failure_is_left_out_and_the_rest_is_run(
    tmp_path: Path, called: list[str], capsys
) -> None:
    chains = [[cell(tmp_path, "bad"), cell(tmp_path, "b")], [cell(tmp_path, "c")]]
    assert cells.study(chains, options(tmp_path), lambda: None) == 1
    assert called == ["bad", "c"]
    shown = capsys.readouterr().out
    assert "bad FAILED" in shown and "said why" in shown and "2 of 3 cells are missing" in shown


def test_no_cell_begins_after_the_time(tmp_path: Path, called: list[str]) -> None:
    assert cells.study([[cell(tmp_path, "a")]], options(tmp_path, minutes=-1.0), lambda: None) == 1
    assert not called


def test_a_cell_that_two_chains_share_counts_once(tmp_path: Path) -> None:
    shared = cell(tmp_path, "base")
    assert cells.unique([[shared, cell(tmp_path, "a")], [shared, cell(tmp_path, "b")]]) == [
        shared,
        cell(tmp_path, "a"),
        cell(tmp_path, "b"),
    ]


def test_a_run_of_another_length_stops_the_study(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "recipe.yaml").write_text(yaml.safe_dump({"training": {"steps": 7}}), "utf-8")
    with pytest.raises(SystemExit, match="7 steps, not 3; give another --output"):
        cell(tmp_path, "a").done()


def test_a_trained_cell_has_the_recipes_steps_or_those_given(tmp_path: Path) -> None:
    recipe = cells.ROOT / "recipes" / "table3" / "dense.yaml"
    own = cells.trained(recipe, tmp_path / "run", options(tmp_path), "training.seed=1")
    assert (
        own.steps
        == yaml.safe_load((recipe.parent / "base.yaml").read_text("utf-8"))["training"]["steps"]
    )
    fewer = cells.trained(recipe, tmp_path / "run", options(tmp_path, steps=5), "training.seed=1")
    assert fewer.steps == 5 and "training.steps=5" in fewer.calls[0]


def test_the_defaults_run_everything(tmp_path: Path) -> None:
    given = cells.arguments("", "runs/x", ["dense", "token"]).parse_args([])
    assert (
        given.systems == ["dense", "token"]
        and given.minutes == math.inf
        and given.output == Path("runs/x")
    )

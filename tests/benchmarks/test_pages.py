"""Pages say what the figures say."""

from pathlib import Path

import pytest
import table1_page
import table2_page
import table3_page
import transfer_page
from pages import Conditions, Finding, Results, Study, Task, place, write_parts

from skillweave.recipe import read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TASKS = {
    "up": Task("up, accuracy %", "accuracy", 100, digits=1),
    "down": Task("down, CER", "cer", lower=True),
}
STUDY = Study(
    "study",
    {"one": "One", "two": "Two"},
    TASKS,
    [Finding("one beats two", "one", "two", ("up", "down"))],
)


def results(one: list[float], two: list[float], task: str = "up") -> Results:
    def rows(values: list[float]) -> dict:
        metric = TASKS[task].metric
        return {
            seed: {metric: value, "chance": {metric: 0.25}} for seed, value in enumerate(values)
        }

    return Results(STUDY, {("one", task): rows(one), ("two", task): rows(two)})


def test_a_cell_is_mean_and_standard_deviation() -> None:
    assert results([0.5, 0.7], []).cell("one", "up") == "60.0 ± 14.1"
    assert results([0.5], []).cell("one", "up") == "50.0"
    assert results([0.5], []).cell("two", "up") == "—"


def test_a_cell_of_one_seed_has_the_interval_over_samples() -> None:
    row = {"accuracy": 0.5, "interval": {"accuracy": [0.41, 0.6]}}
    assert Results(STUDY, {("one", "up"): {0: row}}).cell("one", "up") == "50.0 (41.0 – 60.0)"


def test_a_gain_is_the_difference_of_means_and_the_root_of_summed_variances() -> None:
    gain, spread = results([0.5, 0.7], [0.2, 0.4]).gain("one", "two", "up")
    assert (gain, spread) == pytest.approx((30, 20))  # variances of 200 each
    lower = results([0.5, 0.7], [0.2, 0.4], "down").gain("one", "two", "down")
    assert lower == pytest.approx((-0.3, 0.2))


def test_a_finding_needs_a_gain_beyond_the_spread_or_no_loss_beyond_it() -> None:
    better = Finding("", "one", "two", ["up"])
    assert results([0.5, 0.7], [0.2, 0.4]).judge(better) == [True]
    assert results([0.5, 0.7], [0.4, 0.6]).judge(better) == [False]
    assert results([0.4, 0.6], [0.5, 0.7]).judge(better._replace(better=False)) == [True]
    assert results([0.2, 0.4], [0.5, 0.7]).judge(better._replace(better=False)) == [False]
    assert results([0.5], [0.2]).judge(better) == [None]


def test_a_folder_names_system_and_seed() -> None:
    assert place(Path("runs/x/dense-seed2")) == ("dense", 2)
    assert place(Path("specific-seed10-text_to_image")) == ("specific", 10)


def test_what_a_person_wrote_between_the_marks_stays(tmp_path: Path) -> None:
    write_parts(tmp_path, "page", ["before"], ["after"])
    file = tmp_path / "page.md"
    file.write_text(
        file.read_text("utf-8").replace("reading -->\n", "reading -->\nMine.\n", 1), "utf-8"
    )
    write_parts(tmp_path, "page", ["new before"], ["new after"])
    assert (
        " ".join(file.read_text("utf-8").split())
        == "new before <!-- reading --> Mine. <!-- /reading --> new after"
    )


def made(study: Study, better: float = 0.0) -> Results:
    """Three seeds of every system and task; each system is better by `better` than the one
    before."""
    counts = {"n": 10, "total_parameters": 2e6, "activated_parameters": 1e6}
    rows: dict = {}
    for number, system in enumerate(study.systems):
        for name, task in study.tasks.items():
            value = 0.5 + better * number * (-1 if task.lower else 1)
            for seed in range(3):
                found = {task.metric: value + 0.001 * seed, "chance": {task.metric: 0.25}, **counts}
                rows.setdefault((system, name), {})[seed] = found
    return Results(study, rows)


def conditions(recipe: str) -> Conditions:
    environment = {
        "processor": "a CPU",
        "cores": 2,
        "threads": 1,
        "python": "3.12",
        "packages": {"torch": "2.13"},
    }
    read = read_recipe(RECIPES / recipe, ["training.steps=1"])
    return Conditions(read, {"dense": 1}, [0, 1, 2], [environment], "python benchmarks/x.py")


def test_table_2_has_a_row_for_every_system(tmp_path: Path) -> None:
    figures = table2_page.write_page(
        tmp_path, made(table2_page.STUDY, 0.02), conditions("table2/skillnet.yaml")
    )
    page = (tmp_path / "table2.md").read_text("utf-8")
    assert all(f"| {title} | " in page for title in table2_page.SYSTEMS.values())
    assert len(figures) == len(table2_page.FINDINGS) and (tmp_path / "table2.svg").is_file()


def test_table_3_counts_the_routes_that_beat_the_dense_model(tmp_path: Path) -> None:
    study = table3_page.STUDY
    found = made(study, 0.02)
    ratios = {system: {"training": 1.5, "inference": 1.0} for system in study.systems}
    times = {"threads": 1, "rounds": 7, "ratios": ratios}
    figures = table3_page.write_page(tmp_path, found, times, conditions("table3/attribute.yaml"))
    page = (tmp_path / "table3.md").read_text("utf-8")
    assert "compared with the dense model 20 times" in page
    assert "better by more than the spread over seeds in 20 comparisons, worse in 0" in page
    assert "at most 1.50 × in training and 1.00 × in inference of the dense model's time" in page
    assert "| attribute | 1.50 × | 1.4 × | 1.00 × | 1.0 × |" in page
    assert [figure.holds for figure in figures] == [True] * len(study.findings)
    assert [f.holds for f in table3_page.time_figures(ratios)] == [True, True] * 2 + [
        False,
        True,
    ] * 3


def test_table_3_says_what_is_at_chance_and_works_without_times(tmp_path: Path) -> None:
    found = made(table3_page.STUDY)  # a perplexity of 0.5 is worse than one of 0.25
    table3_page.write_page(tmp_path, found, {}, conditions("table3/attribute.yaml"))
    page = (tmp_path / "table3.md").read_text("utf-8")
    assert "dense on word filling" in page and "dense on naming" not in page
    assert "Naming: the best system is dense with 50.1 ± 0.1." in page
    assert "and 20 are undecided" in page and "not measured yet" in page


def test_transfer_names_the_best_way(tmp_path: Path) -> None:
    transfer_page.write_page(tmp_path, made(transfer_page.STUDY, 0.1), conditions("transfer.yaml"))
    page = (tmp_path / "transfer.md").read_text("utf-8")
    assert "Clips by text: the best result is 90.1 ± 0.1 (from scratch, 100 %)." in page
    assert "Results of the paper" not in page and "(chance 25.0)" in page


def interference(ratio: float | None) -> dict:
    grid = [[1.0, ratio], [0.5, 1.0]]
    return {
        "tasks": ["image_naming", "word_filling"],
        "blocks": [{"block": "b", "pooled": grid, "values": grid}],
    }


def test_table_1_has_intervals_over_seeds_and_leaves_out_what_is_not_shared(tmp_path: Path) -> None:
    seeds = {0: interference(-0.2), 1: interference(-0.3), 2: interference(-0.4)}
    apart = {seed: interference(None) for seed in range(3)}
    rows = table1_page.write_page(
        tmp_path, {"dense": seeds, "task": apart}, 30, 600, "python benchmarks/x.py"
    )
    page = (tmp_path / "table1.md").read_text("utf-8")
    assert "| b | word filling on naming | -0.30 (-0.55 … -0.05) | – |" in page  # 4.303 · 0.1 / √3
    assert "below 0 for 1 of 2 pairs (harm) and above 0 for 1 (help)" in page
    assert "the lowest mean in the dense model is -0.30, for word filling on naming" in page
    assert "30 batches of each task, after 600 steps of training; seeds 0, 1, 2." in page
    assert len(rows) == 3 and (tmp_path / "table1.svg").is_file()


def test_of_one_seed_there_is_no_interval() -> None:
    assert table1_page.estimate([0.25]).text == "0.25"
    assert table1_page.estimate([-0.001]).text == "0.00"
    assert table1_page.estimate([]) is None

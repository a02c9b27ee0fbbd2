"""The cells of each study: how many, in which order, and that their recipes can be read with what
is written over them."""

import argparse
import json
from pathlib import Path

import m6
import m6_page
import m6_texts
import moe_table1
import moe_table3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import quality
import skillnet_table2
import start
import steering
import transfer
import transfer_page
from cells import Cell, arguments, unique
from table1_page import SYSTEMS
from table2_page import STUDY as TABLE2
from table3_page import STUDY as TABLE3
from woven import save_models

from skillweave.recipe import find_recipe, read_recipe


def options(folder: Path, systems: list[str], **more) -> argparse.Namespace:
    given = arguments("", str(folder), systems).parse_args(["--steps", "9"])
    return argparse.Namespace(**{**vars(given), "runs": folder / "table3", **more})


def test_steering_changes_nothing_but_the_weights(tmp_path: Path) -> None:
    given = options(tmp_path, list(steering.SYSTEMS), mixtures=["quickstart"])
    found = unique(list(steering.chains(given)))
    assert len(found) == 3 * len(steering.SYSTEMS)
    steered = [cell for cell in found if "fixed" not in cell.folder.name]
    for cell in found:
        recipe = read_recipe(cell.calls[0][1], cell.calls[0][2:])
        mixture = recipe.training.mixture
        assert (mixture.steering is not None) == (cell in steered)
        equal = len({task.weight for task in recipe.tasks.values()}) == 1
        assert equal == cell.folder.name.startswith("quickstart-equal")


def test_the_page_of_steering(tmp_path: Path) -> None:
    """Two seeds of two tasks: means by hand, the worst task, and what was read before."""
    more = {"mixtures": ["quickstart"], "docs": tmp_path, "json": tmp_path / "found.json"}
    given = options(tmp_path, list(steering.SYSTEMS), **more)
    cells = unique(list(steering.chains(given)))
    for cell in cells:
        system, seed = cell.folder.name, cell.folder.name[-1]
        if system not in [f"quickstart-{s}-seed{n}" for s in ("fixed", "validation") for n in "01"]:
            continue
        cell.folder.mkdir(parents=True)
        recipe = read_recipe(cell.calls[0][1], cell.calls[0][2:])
        (cell.folder / "recipe.yaml").write_text(f"training: {{steps: {recipe.training.steps}}}")
        good = 0.6 if "fixed" in system else 0.7 + 0.1 * int(seed)
        measured = {
            "text": {"accuracy": good, "chance": {"accuracy": 0.5}, "n": 9},
            "image": {"accuracy": 0.2, "n": 9},
        }
        cell.result.write_text(json.dumps(measured))
        lines = [{"kind": "train"}]
        if "fixed" not in system:
            lines.append({"kind": "steering_by_validation", "metric": {"text": 2.0, "image": 0.5}})
        (cell.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "steering.md").write_text(f"{steering.BEGIN}\nRead.\n{steering.END}")
    steering.write(given, cells)
    page = (tmp_path / "steering.md").read_text()
    assert f"{steering.BEGIN}\nRead.\n{steering.END}" in page
    row = next(line for line in page.splitlines() if line.startswith("| validation |"))
    # means of 0.7, 0.2 and of 0.8, 0.2
    assert row.startswith("| validation | 2 | 0.475 ± 0.035 | 0.200 ± 0.000 | 0.750 ± 0.071 |")
    assert row.endswith("| 2.00 0.50 |")
    (figure,) = json.loads((tmp_path / "found.json").read_text())
    assert figure["value"] == pytest.approx(0.075) and figure["holds"]


def test_table_2_has_ten_runs_a_seed(tmp_path: Path) -> None:
    found = list(skillnet_table2.chains(options(tmp_path, list(TABLE2.systems))))
    # five specific models, pretraining, and four systems
    assert len(unique(found)) == 3 * (5 + 1 + 4)
    assert {cell.steps for cell in unique(found) if "specific" not in cell.folder.name} == {9}


def test_table_3_has_ten_runs_a_seed_and_specific_ones_share_the_steps(tmp_path: Path) -> None:
    found = unique(list(moe_table3.chains(options(tmp_path, list(TABLE3.systems)))))
    specific = [cell.steps for cell in found if cell.folder.name.startswith("specific-seed0")]
    assert len(found) == 3 * (6 + 4) and sum(specific) == 9


@pytest.mark.parametrize("route", ["dense", "token", "context", "modality", "task", "attribute"])
def test_a_system_of_table_3_differs_in_its_route_alone(route: str) -> None:
    recipe, packaged = (
        read_recipe(find_recipe(f"table3/{route}")),
        read_recipe(find_recipe("unified")),
    )
    assert recipe.model.encoder.sparse.at(0)["qkv"].route == route
    same = {"encoder": recipe.model.encoder}
    assert packaged.model.model_copy(update=same) == recipe.model and packaged.tasks == recipe.tasks


def test_table_1_measures_each_run_of_table_3_after_it(tmp_path: Path) -> None:
    found = list(moe_table1.chains(options(tmp_path, list(SYSTEMS), batches=5)))
    assert len(found) == 3 * 5
    for run, measurement in found:
        assert run.folder.parent == tmp_path / "table3" and str(run.folder) in measurement.calls[0]


def test_transfer_begins_with_the_base_and_leaves_out_what_was_not_asked(tmp_path: Path) -> None:
    found = list(transfer.chains(options(tmp_path, list(transfer_page.WAYS))))
    # base, zero-shot, three ways and none for two tasks
    assert len(unique(found)) == 3 * (1 + 1 + 3 * 2 + 2)
    assert [chain[0].folder.name for chain in found[::3]] == [
        f"attribute-seed{seed}" for seed in range(3)
    ]
    (only,) = list(transfer.chains(options(tmp_path, ["full"], seeds=[4])))
    assert [cell.folder.name for cell in only] == [
        "attribute-seed4",
        "full-seed4-text_to_frames",
        "full-seed4-emoji_kinds",
    ]


def test_every_kind_of_picture_is_in_training_and_in_the_test(tmp_path: Path) -> None:
    transfer.write_kinds(tmp_path / "kinds.parquet")
    rows = pq.read_table(tmp_path / "kinds.parquet", columns=["split", "label"]).to_pylist()
    classes = set(read_recipe(transfer.RECIPE).tasks["emoji_kinds"].classes)
    assert all(
        {row["label"] for row in rows if row["split"] == split} == classes
        for split in ("train", "test")
    )


def test_table_1_is_written_from_what_is_there(tmp_path: Path) -> None:
    given = options(
        tmp_path,
        ["dense"],
        batches=5,
        docs=tmp_path / "docs",
        output=tmp_path,
        json=tmp_path / "out.json",
        seeds=[0],
    )
    grid = [[1.0, 0.5], [-0.25, 1.0]]
    made = {
        "tasks": ["image_naming", "word_filling"],
        "blocks": [{"block": "b", "pooled": grid, "values": grid}],
    }
    moe_table1.measurement(given, "dense", 0).result.write_text(json.dumps(made), "utf-8")
    moe_table1.write(given)
    assert {row["i"]: row["mean"] for row in json.loads(given.json.read_text("utf-8"))} == {
        "image_naming": 0.5,
        "word_filling": -0.25,
    }


def test_quality_is_the_mean_of_the_seeds_against_the_bounds(tmp_path: Path) -> None:
    given = options(tmp_path, ["scratch", "hour"], json=None)
    assert [[cell.folder.name for cell in chain] for chain in quality.chains(given)][:2] == [
        ["scratch-seed0"],
        ["pretraining-seed0", "hour-seed0"],
    ]
    for seed, recall in ((0, 0.2), (2, 0.3)):
        row = {bound.metric: 0.4 for bound in quality.BOUNDS["scratch"]} | {"recall_at_10": recall}
        entry = {**row, "chance": {"recall_at_10": 0.05}}
        file = tmp_path / f"scratch-seed{seed}" / "evaluation.json"
        file.parent.mkdir()
        file.write_text(json.dumps({bound.task: entry for bound in quality.BOUNDS["scratch"]}))
    found = list(quality.figures(given))
    assert [figure.value for figure in found] == pytest.approx([0.4, 0.4, 5, 5, 5])
    assert [figure.holds for figure in found] == [False, True, False, False, False]


def test_transfer_says_how_long_its_bases_were_trained(tmp_path: Path) -> None:
    given = options(tmp_path / "transfer", ["full"], seeds=[0], docs=tmp_path / "docs", json=None)
    given.output.mkdir()
    chains = list(transfer.chains(given))
    for cell in unique(chains):
        cell.folder.mkdir(parents=True)
        (cell.folder / "environment.json").write_text(
            json.dumps(
                {"processor": "a CPU", "cores": 2, "threads": 1, "python": "3.12", "packages": {}}
            )
        )
        task = cell.folder.name.rpartition("-")[2]
        metrics = {"recall_at_10": 0.5, "accuracy": 0.5}
        cell.result.write_text(
            json.dumps(
                {task: {**metrics, "chance": metrics}} if task in transfer_page.TUNED else {}
            )
        )
    transfer.write(
        given,
        unique([[cell._replace(steps=cell.steps + (cell is chains[0][0])) for cell in chains[0]]]),
    )
    assert "Steps: base 10, full 9." in (tmp_path / "docs" / "transfer.md").read_text("utf-8")


M6_ENVIRONMENT = {"processor": "a CPU", "cores": 2, "threads": 1, "python": "3", "packages": {}}


def m6_run(cell: Cell, rows: dict) -> None:
    """The files of a finished run."""
    cell.folder.mkdir(parents=True)
    (cell.folder / "environment.json").write_text(json.dumps(M6_ENVIRONMENT))
    cell.result.write_text(json.dumps(rows))
    lines = [
        {"step": step, "kind": "train", "task": task, "loss": 100.0 / step}
        for step in (1, 2)
        for task in rows
    ]
    (cell.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))


def m6_pretrained(cell: Cell) -> None:
    level = 100.0 if "small" in cell.folder.name else 200.0
    row = {"n": 7, "perplexity": level, "chance": {"perplexity": 700.0}}
    row |= {"total_parameters": 3_000_000, "activated_parameters": 2_000_000}
    m6_run(cell, dict.fromkeys(m6_page.TASKS, row))


def test_m6_pretrains_two_sizes_and_shows_their_losses(tmp_path: Path) -> None:
    given = options(tmp_path, list(m6.SIZES), seeds=[0, 1], docs=tmp_path / "docs", json=None)
    cells = [chain[0] for chain in m6.chains(given) if "scratch" not in chain[0].folder.name]
    assert [cell.folder.name for cell in cells] == [
        "small-seed0",
        "mini-seed0",
        "small-seed1",
        "mini-seed1",
    ]
    assert set(read_recipe(m6.RECIPE).tasks) == set(m6_page.TASKS)
    for cell in cells:
        m6_pretrained(cell)
    m6.write(given, cells)
    page = (given.docs / "m6.md").read_text("utf-8")
    assert "| small | 100.0 ± 0.0 |" in page and "**holds here**" in page
    losses = m6_page.read_losses(cell.folder for cell in cells)
    assert losses["mini", "language_modelling"] == {1: [100.0, 100.0], 2: [50.0, 50.0]}
    assert "<svg" in (given.docs / "m6_loss.svg").read_text("utf-8")


def test_m6_finetunes_asks_and_writes_behind_the_pretraining(tmp_path: Path) -> None:
    given = options(tmp_path, list(m6.SIZES), seeds=[0, 1])
    tasks = list(read_recipe(m6.FINETUNING).tasks)
    scratch, small, mini, _, second, _ = m6.chains(given)
    assert [cell.folder.name for cell in small] == [
        "small-seed0",
        *(f"pretrained-seed0-{task}" for task in tasks),
        *(f"written-seed0-{name}" for name in m6.QUESTIONS),
        *(f"asked-seed0-small-{step}" for step in (9, 8, 6, 4, 2)),  # kept every 9 // 4 steps
    ]
    assert [cell.folder.name for cell in mini] == ["mini-seed0", "asked-seed0-mini-9"]
    assert [cell.folder.name for cell in scratch] == [f"scratch-seed0-{task}" for task in tasks]
    assert not any(cell.folder.name.startswith("written") for cell in second)
    assert [cell.steps for cell in scratch] == [2, 4, 2]  # of 9, by weight
    assert all(f"start_from={small[0].folder}/last" in cell.calls[0] for cell in small[1:4])
    assert str(small[0].folder / "checkpoints" / "step-00000009") in small[-5].calls[0]
    for recipe in (m6.FINETUNING, m6.ZERO_SHOT):
        own = read_recipe(recipe).model
        assert own.encoder == read_recipe(m6.RECIPE).model.encoder


def test_the_page_of_m6_is_written_from_what_is_there(tmp_path: Path) -> None:
    given = options(tmp_path, list(m6.SIZES), seeds=[0], docs=tmp_path / "docs", json=None)
    cells = unique(list(m6.chains(given)))
    accuracy = {"accuracy": 0.25, "interval": {"accuracy": [0.2, 0.3]}, "n": 40}
    accuracy |= {"chance": {"accuracy": 0.1}, "baseline": {"accuracy": 0.4}}
    answer = {"exact_match": 0.5, "interval": {"exact_match": [0.4, 0.6]}}
    answer |= {"chance": {"exact_match": 0.2}, "baseline": {"exact_match": 0.3}}
    types = {kind: {**answer, "exact_match": 0.7} for kind in ("colour", "kind", "number")}
    names = {"bleu_4": 0.01, "rouge_l": 0.2, "cider": 0.345, "chance": {"cider": 0.1}}
    rows = {
        "visual_question_answering": {**answer, "subsets": types},
        "image_text_matching": {"accuracy": 0.6, "auc": 0.66, "chance": {"accuracy": 0.5}},
        "image_to_text": names,
    }
    for cell in cells:
        kind, _, *task = cell.folder.name.split("-")
        if kind in m6.SIZES:
            m6_pretrained(cell)
        elif kind == "pretrained":
            m6_run(cell, {task[0]: rows[task[0]]})
        elif kind == "asked":
            cell.result.write_text(json.dumps(dict.fromkeys(m6_page.ASKED, accuracy)))
    written = [{"text": "a[MASK]b", "predicted_text": "a | b"}]
    pq.write_table(
        pa.Table.from_pylist(written), next(c.result for c in cells if "infilling" in c.folder.name)
    )
    seen = [
        {"emoji": "🍎", "name": "红苹果", "prompt": prompt, "text": text}
        for prompt, text in (("", "苹果"), ("这是", ""))
    ]
    pq.write_table(
        pa.Table.from_pylist(seen), next(c.result for c in cells if "pictures" in c.folder.name)
    )
    m6.write(given, cells)
    page = (given.docs / "m6.md").read_text("utf-8")
    assert "| picture | right name | written | after 这是 |" in page
    assert "| 🍎 | 红苹果 | 苹果 | — |" in page
    asked_of = "50.0 (40.0 – 60.0) | 70.0 (40.0 – 60.0)"  # all questions, then those of a type
    assert f"| fine-tuned from small | {asked_of} |" in page
    assert "| the same steps from nothing | — | — |" in page
    assert "| chance | 50.0 |" in page and "| 60.0 | 0.660 |" in page
    assert "| 1.0 | 20.0 | 0.34 |" in page or "| 1.0 | 20.0 | 0.35 |" in page
    assert "| baseline | 66.80 | 74.00 |" not in page  # rows have the titles of this page
    assert "| the same steps from nothing | 66.80 | 74.00 | 64.50 | 69.00 | 41.90 |" in page
    assert "| small | 0 | 2 | 16 | 25.0 (20.0 – 30.0) |" in page  # two steps of 8 samples
    assert "| a[MASK]b | a \\| b |" in page
    assert "not measured (two seeds needed)" in page
    assert "visual_question_answering 4" in page or "visual_question_answering 5" in page
    assert "<svg" in (given.docs / "m6_cloze.svg").read_text("utf-8")


def test_the_questions_of_m6_are_about_pictures_that_no_training_saw(tmp_path: Path) -> None:
    m6_texts.write_inputs(m6.PACK, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "names.jsonl").read_text("utf-8").splitlines()]
    splits = pq.read_table(m6.PACK, columns=["key", "split", "name_zh"]).to_pylist()
    unseen = {(row["key"], row["name_zh"]) for row in splits if row["split"] == "test"}
    assert len(rows) == m6_texts.PICTURES
    assert {(Path(row["image"]).stem, row["name"]) for row in rows} <= unseen
    asked = (tmp_path / "pictures.jsonl").read_text("utf-8").splitlines()
    assert len(asked) == 3 * len(rows)
    assert m6_texts.emoji_of("1f468-200d-1f33e") == "👨\u200d🌾"  # a man, a joiner, a sheaf of rice


def test_the_woven_study_weaves_a_seed_before_it_trains(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = save_models(tmp_path)
    folders["text"].rename(tmp_path / "minilm")
    folders["sound"].rename(tmp_path / "whisper-base")
    given = options(tmp_path / "start", list(start.SYSTEMS), checkpoints=tmp_path)
    with pytest.warns(UserWarning, match="was converted to"):
        found = list(start.chains(given))
    woven = [chain for chain in found if len(chain) > 1]
    assert len(woven) == 3 and len(found) == 6
    for chain in woven:
        parts, *runs = chain
        assert parts.calls[0][0] == "weave" and len(runs) == 5
        assert all(f"start_from={parts.folder}" in run.calls[0] for run in runs)
        alone = [run.steps for run in runs if run.folder.name.startswith("alone")]
        assert sum(alone) in (8, 9, 10)  # the steps of the mixture, rounded

"""The commands `quickstart`, `train` and `schema`."""

import json

import yaml

import skillweave as sw
from skillweave import cli, training
from skillweave.cli import evaluation
from skillweave.recipe import find_recipe, read_recipe
from skillweave.reporting import card


def test_fraction_is_set_for_every_task(capsys):
    assert cli.main(["train", "quickstart", "--fraction", "0.01", "--print-config"]) == 0
    tasks = yaml.safe_load(capsys.readouterr().out)["tasks"]
    assert len(tasks) == 5 and {task["data"]["fraction"] for task in tasks.values()} == {0.01}
    assert cli.main(["train", "quickstart", "--fraction", "2", "--print-config"]) == 2
    assert (
        "tasks.text_to_code.data.fraction: Input should be less than or equal to 1 (got 2.0)"
        in capsys.readouterr().err
    )


def test_print_config_is_a_recipe_with_every_setting(capsys):
    assert (
        cli.main(["train", "quickstart", "--print-config", "--training.steps", "7", "name=other"])
        == 0
    )
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["training"]["steps"] == 7 and printed["name"] == "other"
    # which the recipe itself does not mention
    assert printed["training"]["optimizer"]["epsilon"] == 1e-8


def test_schema_is_json(capsys):
    assert cli.main(["schema"]) == 0
    assert "training" in json.loads(capsys.readouterr().out)["properties"]


def test_quickstart_says_how_to_continue(tmp_path, capsys):
    words = ["quickstart", f"output={tmp_path}"]
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    assert cli.main(words) == 2
    assert (
        f"continue with: skillweave quickstart output={tmp_path} --resume"
        in capsys.readouterr().err
    )
    (tmp_path / "evaluation.json").touch()
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "is complete" in shown and f'skillweave search {tmp_path} "一个笑脸" --in image' in shown


def test_a_moved_run_is_resumed_where_it_is(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(sw, "train", lambda recipe, **_: seen.append(recipe.output))
    monkeypatch.setattr(card, "write_card", lambda folder: None)  # nothing was trained
    run = tmp_path / "moved"
    (run / "checkpoints" / "step-00000003").mkdir(parents=True)
    recipe = read_recipe(find_recipe("quickstart"), ["output=/where/it/was"])
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")), "utf-8")
    for words in ([run], [run / "recipe.yaml"]):
        assert cli.main(["train", *map(str, words), "--resume"]) == 0
    assert cli.main(["train", str(run), "--resume", "output=elsewhere"]) == 0
    assert cli.main(["train", str(run)]) == 0
    assert seen == [str(run), str(run), "elsewhere", "/where/it/was"]


def test_quickstart_trains_measures_and_shows(run, monkeypatch, capsys, tmp_path):
    seen = []
    monkeypatch.setattr(
        training, "train", lambda recipe, resume: seen.append((recipe.name, resume))
    )
    monkeypatch.setattr(evaluation, "evaluate_run", lambda folder: seen.append(folder))
    assert cli.main(["quickstart", f"output={tmp_path / 'new'}"]) == 0
    assert seen == [("quickstart", False), str(tmp_path / "new")]

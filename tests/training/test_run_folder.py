"""Which folders a run accepts, what may change on resuming, and disk space."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
import yaml
from stand_ins import TinyModel, tiny_recipe

from skillweave.config import ConfigError
from skillweave.storage import partial_name
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.run_folder import (
    describe_run,
    differences,
    require_checkpoint,
    require_free,
    require_same_recipe,
    require_space,
    run_folder,
)


def begin(recipe):
    """Create the folder of a new run."""
    with run_folder(recipe, resume=False):
        pass


def save(run, step):
    Checkpoints(run).save(TrainingState(step=step), lambda folder: None)


def test_a_new_folder_an_empty_one_and_what_a_failed_start_left_are_free(tmp_path):
    require_free(tmp_path / "absent")
    require_free(tmp_path)
    partial_name(tmp_path / "environment.json").touch()
    require_free(tmp_path)
    begin(tiny_recipe(tmp_path))
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "checkpoints").mkdir()
    begin(tiny_recipe(tmp_path, steps=5))
    assert "steps: 5" in (tmp_path / "recipe.yaml").read_text()


def test_a_run_with_a_checkpoint_is_refused_or_resumed(tmp_path):
    recipe = tiny_recipe(tmp_path / "run")
    begin(recipe)
    save(recipe.folder, 1)
    with pytest.raises(
        ConfigError, match="already holds a run; continue it with --resume, or give another output"
    ):
        require_free(recipe.folder)
    require_checkpoint(recipe.folder)


@pytest.mark.parametrize(
    "name", ["thesis.tex", "film.mkv.partial", "recipe.yaml", "metrics.jsonl", ".gitkeep"]
)
def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"holds other files \\({name}\\)"):
        require_free(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        require_free(tmp_path / name)
    assert (tmp_path / name).read_text() == "mine"


def test_nothing_to_resume_lists_what_there_is(tmp_path):
    begin(tiny_recipe(tmp_path / "begun"))
    save(tmp_path / "long", 200)
    for name, why in (("begun", "it holds no checkpoint"), ("typo", "it does not exist")):
        with pytest.raises(ConfigError) as error:
            require_checkpoint(tmp_path / name)
        assert f"nothing to resume: {why}. Runs in {tmp_path}: {tmp_path / 'long'} (step 200)." in (
            str(error.value)
        )
    assert not (tmp_path / "typo").exists()


def test_a_run_that_lost_its_recipe_is_not_resumed(tmp_path):
    recipe = tiny_recipe(tmp_path)
    begin(recipe)
    (tmp_path / "recipe.yaml").unlink()
    with (
        pytest.raises(ConfigError, match=r"recipe\.yaml: no such file.*restore it"),
        run_folder(recipe, resume=True),
    ):
        pass


def test_a_second_process_is_refused_by_the_name_of_the_first(tmp_path):
    recipe = tiny_recipe(tmp_path)
    with run_folder(recipe, resume=False):
        code = (
            "import sys; from pathlib import Path; from skillweave.storage import lock\n"
            "with lock(Path(sys.argv[1])): pass"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
        )
        assert f"process {os.getpid()} on " in second.stderr and "is writing" in second.stderr
    # no lock outlives its process
    subprocess.run([sys.executable, "-c", code + "\nimport os; os._exit(9)", tmp_path], check=False)
    begin(recipe)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write there"):
        begin(tiny_recipe(tmp_path / "file" / "run"))


def test_the_stored_recipe_is_the_resolved_one(tmp_path):
    recipe = tiny_recipe(tmp_path / "run", optimizer={"max_grad_norm": None})
    begin(recipe)
    stored = yaml.safe_load((recipe.folder / "recipe.yaml").read_text("utf-8"))
    assert type(recipe).parse(stored) == recipe
    require_same_recipe(recipe)


def test_what_the_weights_do_not_depend_on_may_change(tmp_path):
    describe_run(tiny_recipe(tmp_path))
    require_same_recipe(tiny_recipe(tmp_path, workers=3, threads=2, save_total_limit=4))


def test_other_changes_are_listed_with_their_paths(tmp_path):
    describe_run(tiny_recipe(tmp_path))
    with pytest.raises(ConfigError) as error:
        require_same_recipe(
            tiny_recipe(tmp_path, steps=20, seed=5, optimizer={"learning_rate": 0.5})
        )
    text = str(error.value)
    assert "training.steps: was 12, now 20" in text and "training.seed: was 0, now 5" in text
    assert "training.optimizer.learning_rate: was 0.0001, now 0.5" in text


def test_differences_go_both_ways():
    found = list(differences({"a": 1, "b": {"c": [1]}}, {"b": {"c": [2]}, "d": 3}))
    assert found == [("a", 1, None), ("b.c", [1], [2]), ("d", None, 3)]


def test_too_little_room_is_found_before_training(tmp_path, monkeypatch):
    model, config = TinyModel(), tiny_recipe(tmp_path, save_total_limit=2).training
    size = sum(p.numel() for p in model.parameters()) * 12 + 100
    usage = namedtuple("usage", "total used free")
    for free, enough in ((4 * size, True), (4 * size - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(0, 0, free))
        if enough:
            require_space(tmp_path, model, {"tokenizer": b"x" * 100}, config)
        else:
            with pytest.raises(ConfigError, match=r"free some space or give another output"):
                require_space(tmp_path, model, {"tokenizer": b"x" * 100}, config)

"""Which folders a run accepts, what may change on resuming, and disk space."""

import shutil
from collections import namedtuple

import pytest
import yaml
from stand_ins import TinyModel, tiny_recipe

from skillweave.config import ConfigError
from skillweave.training.run_folder import (
    create_run_folder,
    differences,
    is_run,
    require_same_recipe,
    require_space,
)


def test_a_new_folder_an_empty_one_and_one_left_before_its_recipe_are_free(tmp_path):
    assert not is_run(tmp_path / "absent", resume=False)
    assert not is_run(tmp_path, resume=True)
    (tmp_path / "recipe.yaml.partial").touch()
    assert not is_run(tmp_path, resume=False)


def test_another_run_is_refused_and_resumed_when_asked(tmp_path):
    recipe = tiny_recipe(tmp_path / "run")
    create_run_folder(recipe)
    with pytest.raises(
        ConfigError, match="already holds a run; continue it with --resume, or give another output"
    ):
        is_run(recipe.folder, resume=False)
    assert is_run(recipe.folder, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_other_things_is_refused(tmp_path, resume):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds other files"):
        is_run(tmp_path, resume)
    with pytest.raises(ConfigError, match="is a file"):
        is_run(tmp_path / "thesis.tex", resume)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write there"):
        create_run_folder(tiny_recipe(tmp_path / "file" / "run"))


def test_the_stored_recipe_is_the_resolved_one(tmp_path):
    recipe = tiny_recipe(tmp_path / "run", optimizer={"max_grad_norm": None})
    create_run_folder(recipe)
    stored = yaml.safe_load((recipe.folder / "recipe.yaml").read_text("utf-8"))
    assert type(recipe).parse(stored) == recipe
    require_same_recipe(recipe)


def test_what_the_weights_do_not_depend_on_may_change(tmp_path):
    create_run_folder(tiny_recipe(tmp_path))
    require_same_recipe(tiny_recipe(tmp_path, workers=3, threads=2, save_total_limit=4))


def test_other_changes_are_listed_with_their_paths(tmp_path):
    create_run_folder(tiny_recipe(tmp_path))
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
    model = TinyModel()
    size = sum(p.numel() for p in model.parameters()) * 12 + 100
    usage = namedtuple("usage", "total used free")
    for free, enough in ((4 * size, True), (4 * size - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(0, 0, free))
        if enough:
            require_space(tmp_path, model, {"tokenizer": b"x" * 100}, save_total_limit=2)
        else:
            with pytest.raises(ConfigError, match=r"free some space or give another output"):
                require_space(tmp_path, model, {"tokenizer": b"x" * 100}, save_total_limit=2)

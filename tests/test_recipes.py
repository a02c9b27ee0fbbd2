"""Every recipe that is shipped can be read, says what it is, and builds a model."""

from pathlib import Path

import pytest
import torch
import yaml

import skillweave
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig, read_recipe
from skillweave.tasks.resolve import recipe_entry

FOLDER = Path(skillweave.__file__).parent / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))
NAMES = [str(path.relative_to(FOLDER)) for path in RECIPES]


def test_there_are_recipes() -> None:
    assert "quickstart.yaml" in NAMES


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_loads_and_survives_its_own_dump(path: Path) -> None:
    recipe = read_recipe(path)
    assert (
        RecipeConfig.parse(
            yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True))
        )
        == recipe
    )


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_names_known_tasks_that_its_model_can_do(path: Path) -> None:
    recipe = read_recipe(path)
    for name in recipe.tasks:
        spans = recipe_entry(recipe, name).spans
        encoded = {span.modality for span in spans if not (span.written and recipe.model.decoder)}
        assert encoded <= set(recipe.model.streams.present())
    with torch.device("meta"):
        assert Model(recipe.model).count_parameters() > 0


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipes_head_says_what_it_is(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()[0].removeprefix("# ")) > 20

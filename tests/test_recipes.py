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


@pytest.mark.parametrize(
    ("name", "layers", "width", "published"), [("base", 24, 1024, 327e6), ("large", 50, 4096, 10e9)]
)
def test_m6_has_its_published_size(name: str, layers: int, width: int, published: float) -> None:
    """M6 Table 3, without the ResNet-50 that gives the features of regions, which is another model
    there ("a trained feature extractor"). By hand: 12 · width² of matrices, 13 · width of biases
    and norms in a layer; words, positions and segments of texts; a projection of 2,048, positions
    and a segment of pictures; three norms."""
    with torch.device("meta"):
        model = Model(read_recipe(FOLDER / "m6" / f"{name}.yaml").model)
    backbone = sum(
        p.numel()
        for n, p in model.named_parameters()
        if n.startswith("embeddings.image.content.features.model.")
    )
    found = model.count_parameters() - backbone
    layer = 12 * width**2 + 13 * width
    texts = (21128 + 512 + 2) * width
    pictures = 2048 * width + width + (16 + 1) * width
    assert found == layers * layer + texts + pictures + 3 * 2 * width
    assert found == pytest.approx(published, rel=0.02)
    assert backbone == pytest.approx(23.5e6, rel=0.01)


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipes_head_says_what_it_is(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()[0].removeprefix("# ")) > 20

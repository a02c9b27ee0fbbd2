"""Every recipe that is shipped can be read, says what it is, and builds a model."""

from pathlib import Path

import pytest
import torch
import transformers as T
import yaml
from hf_folder import save_bert
from woven import save_whisper

import skillweave
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig, read_recipe
from skillweave.tasks.resolve import model_with_tasks, recipe_entry

FOLDER = Path(skillweave.__file__).parent / "recipes"
CHECKPOINTS = FOLDER / "checkpoints"
"""Recipes that start from models of the hub."""
HUB = {CHECKPOINTS, FOLDER / "start"}
"""Folders of recipes that name models of the hub; studies/start.py has its own tests."""
CORPUS = FOLDER / "corpus"
"""Configurations of `skillweave clean`, which tests/corpus reads."""
RECIPES = sorted(path for path in FOLDER.rglob("*.yaml") if {*HUB, CORPUS}.isdisjoint(path.parents))
NAMES = [str(path.relative_to(FOLDER)) for path in RECIPES]


def _save_llama(folder: Path) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    config = T.LlamaConfig(vocab_size=20, num_attention_heads=2, num_key_value_heads=1, **sizes)
    T.LlamaForCausalLM(config).save_pretrained(folder)


STAND_INS = {
    "sentence-transformers/all-MiniLM-L6-v2": lambda folder: save_bert(folder, T.BertModel),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _save_llama,
    "openai/whisper-base": lambda folder: save_whisper(
        folder, T.WhisperForConditionalGeneration, max_source_positions=100
    ),
}


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


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_of_a_checkpoint_starts_from_a_folder(path: Path, tmp_path, monkeypatch) -> None:
    """A tiny model of the same family stands in for the checkpoint."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    written = yaml.safe_load(path.read_text("utf-8"))
    folder = tmp_path / "checkpoint"
    STAND_INS[written["start_from"]](folder)
    overrides = [f"start_from={folder}"]
    if "preset" in written.get("model", {}):
        assert written["model"]["preset"] == written["start_from"]
        overrides.append(f"model.preset={folder}")
    with pytest.warns(UserWarning, match="was converted to"):
        recipe = read_recipe(path, overrides)
    with torch.device("meta"):
        assert Model(model_with_tasks(recipe)).count_parameters() > 0
    assert f"recipes/checkpoints/{path.name}" in path.read_text("utf-8")

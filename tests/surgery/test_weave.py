"""Weaving: each skill's weights from its own model, word by word where vocabularies differ, and a
table that adds up."""

import json

import every_task
import pytest
import torch
from tiny import randomise
from tiny_run import make_run

from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig, read_recipe
from skillweave.surgery.weave import weave
from skillweave.tasks.resolve import resolve
from skillweave.weights.files import require_equal

QKV = "encoder.blocks.0.attention.qkv.experts"
FEED_FORWARD = "encoder.blocks.0.feed_forward.experts.shared.inner.weight"
DENSE = "model.encoder.sparse.qkv.route=dense"


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("weave")) / "recipe.yaml"


@pytest.fixture(scope="module")
def recipe(recipe_file):
    return read_recipe(recipe_file)


@pytest.fixture(scope="module")
def models(recipe_file, tmp_path_factory):
    """A dense model of a task of its own for text and sound, and a SkillNet of text and image;
    modality → (folder, model)."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    tasks = {
        "text": ["only=[text_classification]", DENSE],
        "sound": ["only=[speech_recognition]", DENSE],
        "image": ["only=[text_to_image]"],
    }
    for seed, (modality, overrides) in enumerate(tasks.items(), 1):
        single = resolve(read_recipe(recipe_file, overrides))
        torch.manual_seed(seed)
        model = Model(single.model, single.assets)
        randomise(model)
        model.save_pretrained(folder / modality)
        found[modality] = (folder / modality, model)
    return found


@pytest.fixture(scope="module")
def woven(recipe, models):
    return weave(recipe, {modality: folder for modality, (folder, _) in models.items()})


def test_each_skill_comes_from_its_own_model(woven, models) -> None:
    own = woven.model.state_dict()
    given = {modality: model.state_dict() for modality, (_, model) in models.items()}
    for part in ("weight", "bias"):
        assert torch.equal(own[f"{QKV}.text.{part}"], given["text"][f"{QKV}.shared.{part}"])
        assert torch.equal(own[f"{QKV}.sound.{part}"], given["sound"][f"{QKV}.shared.{part}"])
        assert torch.equal(own[f"{QKV}.image.{part}"], given["image"][f"{QKV}.image.{part}"])
    for name in own:
        modality = name.split(".")[1]
        if name.startswith("embeddings.") and modality in models:
            assert torch.equal(own[name], given[modality][name]), name
    assert torch.equal(own[FEED_FORWARD], given["text"][FEED_FORWARD])
    assert torch.equal(
        own["targets.ctc.classifier.weight"], given["sound"]["targets.ctc.classifier.weight"]
    )
    assert torch.equal(
        own["targets.contrastive.log_scale"], given["image"]["targets.contrastive.log_scale"]
    )


def test_what_no_model_gives_is_fresh_and_said_so(woven, recipe, models) -> None:
    resolved = resolve(recipe)
    # the text model's words are text's alone: text and code get their own
    assert resolved.assets == woven.model.assets
    torch.manual_seed(recipe.training.seed)
    fresh = Model(resolved.model, resolved.assets).state_dict()
    own = woven.model.state_dict()
    assert own.keys() == woven.provenance.keys()
    for name, origin in woven.provenance.items():
        if not origin.source:
            assert name.startswith(
                ("embeddings.video", "embeddings.code", f"{QKV}.video", f"{QKV}.code")
            )
            assert origin.note == "no model given for it" and torch.equal(own[name], fresh[name])


def test_words_are_matched_by_wordpiece(woven, models, recipe) -> None:
    folder, source = models["text"]
    pieces, theirs = (
        json.loads(assets["text_tokenizer.json"])["model"]["vocab"]
        for assets in (woven.model.assets, source.assets)
    )
    assert pieces != theirs
    table = woven.model.state_dict()["shared.word.weight"]
    given = source.state_dict()["embeddings.text.content.word.weight"]
    torch.manual_seed(recipe.training.seed)
    fresh = Model(woven.model.config).state_dict()["shared.word.weight"]
    for piece, row in pieces.items():
        expected = given[theirs[piece]] if piece in theirs else fresh[row]
        assert torch.equal(table[row], expected), piece
    origin = woven.provenance["shared.word.weight"]
    count = sum(piece in theirs for piece in pieces)
    assert (
        origin.source == f"text={folder}"
        and origin.note == f"{count} of {len(pieces)} tokens, the others fresh"
    )
    assert origin.share == count / len(pieces)


def test_words_made_for_the_same_modalities_are_kept(recipe, recipe_file) -> None:
    again = weave(recipe, {"code": recipe_file.parent})
    run = Model.from_pretrained(recipe_file.parent / "best")
    assert again.model.assets == run.assets
    assert torch.equal(
        again.model.state_dict()["shared.word.weight"], run.state_dict()["shared.word.weight"]
    )
    assert not again.provenance["shared.word.weight"].note


def test_shared_parts_come_from_the_model_named(recipe, models) -> None:
    given = {modality: models[modality][0] for modality in ("text", "sound")}
    shared = weave(recipe, given, shared="sound").model.state_dict()
    assert torch.equal(shared[FEED_FORWARD], models["sound"][1].state_dict()[FEED_FORWARD])
    with pytest.raises(
        ConfigError, match="unknown model to share 'video'; valid names: text, sound"
    ):
        weave(recipe, given, shared="video")


def test_training_starts_from_all_of_it(woven, recipe) -> None:
    resolved = resolve(recipe, woven.model.assets)
    assert resolved.model == woven.model.config
    fresh = Model(resolved.model, resolved.assets).state_dict()
    require_equal(fresh, woven.model.state_dict(), "woven")


def test_shapes_that_disagree_stay_fresh(recipe_file, models) -> None:
    longer = read_recipe(recipe_file, ["model.streams.sound.max_length=70"])
    provenance = weave(longer, {"sound": models["sound"][0]}).provenance
    notes = {
        name: origin.note
        for name, origin in provenance.items()
        if name.startswith("embeddings.sound") and not origin.source
    }
    label = f"sound={models['sound'][0]}"
    assert notes == {
        "embeddings.sound.positions.position.table.weight": f"(60, 16) in {label}, (70, 16) here"
    }


def test_faults_are_told(recipe, recipe_file, models) -> None:
    text, sound = models["text"][0], models["sound"][0]
    narrow = read_recipe(recipe_file, ["model.width=8"])
    with pytest.raises(
        ConfigError,
        match=r"text=.*: nothing of its embedding and skill fits .*16\) in text=.*8\) here",
    ):
        weave(narrow, {"text": text})
    with pytest.raises(ConfigError, match="that model has no stream 'image', only sound"):
        weave(recipe, {"text": text, "image": sound})
    with pytest.raises(ConfigError, match="unknown modality 'txet'; did you mean 'text'"):
        weave(recipe, {"txet": text})
    alone = read_recipe(recipe_file, ["only=[text_classification]"])
    with pytest.raises(ConfigError, match="no task of the recipe uses 'sound'"):
        weave(alone, {"sound": sound})
    with pytest.raises(ConfigError, match="give at least one model"):
        weave(recipe, {})
    assert Modality.SOUND in alone.model.streams.present()  # it is the tasks that count


def test_weights_of_another_architecture_are_not_taken(recipe_file, models) -> None:
    """The same shapes, with other heads."""
    folder, _ = models["text"]
    other = read_recipe(recipe_file, ["model.encoder.heads=1"])
    found = weave(other, {"text": folder}).provenance
    for name, origin in found.items():
        if name.startswith("encoder."):
            assert not origin.source, name
    assert "there, 1 here" in found[FEED_FORWARD].note
    assert found["embeddings.text.norm.weight"].source


def test_a_decoder_brings_its_words(tmp_path) -> None:
    """With the tokenizer that they belong to, and with more rows than that has tokens."""
    data = every_task.recipe("speech_to_text").model_dump(mode="json")
    data["model"] |= {"streams": {"sound": data["model"]["streams"]["sound"]}, "shared": []}
    data["model"]["target_embedding"]["tied"] = False
    data["model"]["targets"] = {"lm": {"tied": False}}
    first = resolve(RecipeConfig.parse(data))
    described = first.model.model_dump(mode="json")
    described["target_embedding"]["vocabulary"] += 30
    base = Model(ModelConfig.parse(described), first.assets)
    randomise(base)
    base.save_pretrained(tmp_path)
    data["tasks"]["speech_to_text"]["data"]["limit"] = 20  # another tokenizer would be trained
    woven = weave(RecipeConfig.parse(data), {"sound": tmp_path})
    assert woven.model.assets == base.assets
    for name in ("target_embedding.content.word.weight", "targets.lm.output.weight"):
        assert torch.equal(woven.model.state_dict()[name], base.state_dict()[name])

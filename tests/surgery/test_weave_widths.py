"""Weaving across widths: streams keep the encoders of their models, which compute what Transformers
computes, and projectors lead into a shared trunk of another width."""

import shutil

import numpy as np
import pytest
import torch
import transformers as T
from hf_folder import save_bert
from PIL import Image
from tiny import randomise, relative_error
from woven import TASKS, TRUNK, save_models, woven_recipe

import skillweave as sw
from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.config.training import TuningConfig
from skillweave.data.processors import build_processors
from skillweave.evaluation.agreement import differences, made_batch
from skillweave.layers.tokens import map_tokens
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig, read_recipe
from skillweave.surgery.carve import carve, carve_run
from skillweave.surgery.probe import compare_stream
from skillweave.surgery.weave import comparison_lines, weave
from skillweave.training import train
from skillweave.training.partial_tuning import freeze

SENTENCE = "the dog is very good"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("widths")
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def models(folder):
    with pytest.warns(UserWarning, match="was converted to"):
        found = save_models(folder)
        woven_recipe(folder, found)
    return found


@pytest.fixture(scope="module")
def recipe(folder, models):
    return woven_recipe(folder, models)


@pytest.fixture(scope="module")
def woven(recipe, models):
    return weave(recipe, models)


@pytest.fixture(scope="module")
def saved(woven, folder):
    woven.model.save_pretrained(folder / "woven")
    return folder / "woven"


def own_vectors(model: Model, task: str, **inputs) -> torch.Tensor:
    """[T, D] what the own encoder of the only input's stream gives, through `Predictor`."""
    (modality,) = inputs
    found = []
    encoder = model.stream_encoders[modality]
    handle = encoder.register_forward_hook(lambda module, given, output: found.append(output[0]))
    sw.Predictor(model).encode(task, **inputs)
    handle.remove()
    return found[0]


def test_a_text_has_the_vectors_of_transformers(woven, models) -> None:
    tokens = T.AutoTokenizer.from_pretrained(models["text"])(SENTENCE, return_tensors="pt")
    with torch.no_grad():
        theirs = T.AutoModel.from_pretrained(models["text"])(**tokens).last_hidden_state[0]
    found = own_vectors(woven.model, "text_to_image", text=[SENTENCE])
    assert found.shape == theirs.shape and relative_error(found, theirs) < 1e-5


def test_a_picture_has_the_vectors_of_transformers(woven, models) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 17, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    given = T.AutoImageProcessor.from_pretrained(models["image"], use_fast=False)(
        picture, return_tensors="pt"
    )
    with torch.no_grad():
        theirs = T.AutoModel.from_pretrained(models["image"])(**given).last_hidden_state[0]
    found = own_vectors(woven.model, "text_to_image", image=[picture])
    assert relative_error(found, theirs) < 1e-5


def test_a_recording_has_the_vectors_of_transformers(woven, models) -> None:
    sound = np.sin(np.arange(9000) / 30).astype(np.float32)
    extractor = T.AutoFeatureExtractor.from_pretrained(models["sound"])
    given = extractor(sound, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        theirs = T.AutoModel.from_pretrained(models["sound"]).encoder(**given).last_hidden_state[0]
    processor = build_processors(woven.model.config, woven.model.assets)[Modality.SOUND]
    assert relative_error(processor(sound).data, given["input_features"][0].T) < 1e-4
    assert woven.comparisons[f"sound={models['sound']}"].vectors < 1e-5
    assert theirs.shape == (50, 20)


def test_every_part_says_where_it_comes_from(woven, models) -> None:
    sources = {modality: f"{modality}={path}" for modality, path in models.items()}
    for name, origin in woven.provenance.items():
        part, which = name.split(".")[:2]
        if part in ("embeddings", "stream_encoders"):
            mask = name.endswith(".mask")
            assert mask or origin.source == sources[which], name
        else:
            assert not origin.source and origin.note, name
    files = {row.group: row.source for row in woven.files}
    assert files["text_tokenizer.json"] == sources["text"]
    assert files["preprocessing of image"] == sources["image"]
    lines = comparison_lines(woven)
    assert len(lines) == 3 and all("equal vectors" in line for line in lines)


def test_all_vectors_end_in_the_width_of_the_trunk(woven) -> None:
    for task in TASKS:
        for hidden_NLD in woven.model.hidden(made_batch(woven.model, task)):
            assert hidden_NLD.shape[-1] == TRUNK


def test_the_trunk_reads_what_the_projector_gives(woven) -> None:
    """By a plain composition of the modules on a single sample."""
    model, batch = woven.model, made_batch(woven.model, "text_classification")
    one = type(batch)(batch.layout, tuple(x[:1] for x in batch.inputs), batch.lengths[:1])
    condition = one.layout.condition(0)
    resolved = model.resolve("text_classification")
    with torch.no_grad():
        embedding = model.embeddings["text"]
        x_TD = embedding(one.inputs[0], embedding.place(one.layout, 0, one.lengths), {})[0]
        tokens = map_tokens(one.layout, 0, one.lengths, x_TD.device)
        own, shared = model.stream_encoders["text"], model.encoder
        count = len(own.blocks)
        own_TD, _ = own(x_TD, tokens, [resolved[condition][:count]])
        expected, _ = shared(
            model.projectors["text"](own_TD), tokens, [resolved[condition][count:]]
        )
        (found,) = model.hidden(one)
    assert relative_error(found[0], expected) < 1e-6


def test_spans_of_a_stream_see_each_other_in_its_encoder(recipe) -> None:
    """A pair of texts is one sequence for BERT, whatever else the pass holds."""
    described = recipe.model.model_dump(mode="json")
    spans = [{"modality": m} for m in ("text", "image", "text")]
    described["tasks"] = {"mixed": {"spans": spans, "targets": {}}}
    model = Model(sw.ModelConfig.parse(described)).eval()
    randomise(model)
    batch = made_batch(model, "mixed")
    inputs = list(batch.inputs)
    inputs[2] = inputs[2].flip(1)
    other = type(batch)(batch.layout, tuple(inputs), batch.lengths)
    seen = []
    handle = model.stream_encoders["text"].register_forward_hook(
        lambda module, given, output: seen.append(given[1].to_padded(output[0]))
    )
    first, second = model.hidden(batch)[0], model.hidden(other)[0]
    handle.remove()
    length = batch.layout.spans[0].length
    assert seen[0].shape[1] == 2 * length  # both texts, and no picture
    assert not torch.allclose(seen[0][:, :length], seen[1][:, :length])
    assert first.shape == second.shape and first.shape[1] > 2 * length


@pytest.mark.parametrize("way", ["frozen", "lora", "full"])
def test_gradients_flow_where_they_should(saved, recipe, way) -> None:
    model = Model.from_pretrained(saved).train()
    freeze(model, TuningConfig(method="full", streams={"text": way}), set())
    model.hidden(made_batch(model, "text_classification"))[0].square().sum().backward()
    moved = {name for name, x in model.named_parameters() if x.grad is not None}
    text = {name for name in moved if name.split(".")[1] == "text"} - {
        name for name in moved if name.startswith("projectors.")
    }
    assert any(name.startswith("projectors.text") for name in moved)
    assert any(name.startswith("encoder.") for name in moved)
    if way == "frozen":
        assert not text
    if way == "lora":
        assert text and all(".lora_" in name for name in text)
    if way == "full":
        assert any(name.startswith("embeddings.text") for name in text)
        assert any(name.startswith("stream_encoders.text") for name in text)


def test_it_trains_saves_loads_and_resumes(saved, recipe, folder) -> None:
    streams = {"text": "lora", "image": "frozen"}
    tuned = recipe.model_copy(
        update={
            "start_from": str(saved),
            "output": str(folder / "tuned"),
            "tuning": TuningConfig(method="full", streams=streams, rank=2),
            "training": recipe.training.model_copy(update={"checkpoint_every": 2}),
        }
    )
    run = train(tuned, quiet=True)
    before, after = sw.load(saved).state_dict(), sw.load(run).state_dict()
    for name in before:
        same = torch.equal(before[name], after[name])
        if name.startswith(("embeddings.image", "stream_encoders.image", "embeddings.text")):
            assert same, name
    assert not torch.equal(
        before["stream_encoders.text.blocks.0.attention.output.weight"],
        after["stream_encoders.text.blocks.0.attention.output.weight"],
    )
    interrupted = folder / "interrupted"
    shutil.copytree(run, interrupted, symlinks=True)
    (last,) = [p for p in (interrupted / "checkpoints").iterdir() if p.name.endswith("3")]
    shutil.rmtree(last)
    again = train(
        read_recipe(run / "recipe.yaml").model_copy(update={"output": str(interrupted)}),
        resume=True,
        quiet=True,
    )
    resumed = sw.load(again).state_dict()
    assert all(torch.equal(after[name], resumed[name]) for name in after)


def test_a_carved_task_answers_as_the_whole(saved) -> None:
    model = sw.load(saved)
    for task in TASKS:
        carved = carve(model, task)
        assert differences(model, carved, [made_batch(model, task)])[task] < 1e-5
        kept = {name.split(".")[1] for name in carved.state_dict() if "stream_enc" in name}
        assert kept == {m.value for m in model.config.tasks[task].layout(task).modalities}


def test_a_carved_run_is_exported(saved, recipe, folder) -> None:
    run = train(
        recipe.model_copy(update={"start_from": str(saved), "output": str(folder / "whole")}),
        quiet=True,
    )
    about = carve_run(run, "text_classification", folder / "small")
    (encoder,) = about["encoders"]
    assert encoder["format"] == "torch.export" and "own" in encoder["why"]
    assert encoder["largest_relative_error"] < 1e-5


def test_faults_are_told(folder, models, recipe) -> None:
    save_bert(folder / "other", T.BertModel)
    wide = T.BertConfig(
        vocab_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    T.BertModel(wide).save_pretrained(folder / "other")
    with pytest.raises(
        ConfigError, match="of another architecture than the recipe's stream 'text'"
    ):
        weave(recipe, {"text": folder / "other"})
    with pytest.raises(ConfigError, match="that model has no stream 'image', only text"):
        weave(recipe, {"image": models["text"]})
    described = recipe.model_dump(mode="json")
    words = folder / "words"
    words.mkdir()
    vocabulary = (models["text"] / "vocab.txt").read_text().split()
    (words / "vocab.txt").write_text("\n".join([*vocabulary[:5], *vocabulary[:4:-1]]))
    described["model"]["streams"]["text"]["tokenizer"] = {"path": str(words / "vocab.txt")}
    with pytest.raises(ConfigError, match="is another tokenizer than that of the model"):
        weave(RecipeConfig.parse(described), models)
    described = recipe.model_dump(mode="json")
    described["model"]["streams"]["text"]["encoder"] = None
    with pytest.raises(ConfigError, match="give the stream an `encoder` or a `preset`"):
        RecipeConfig.parse(described)
    described["model"]["streams"]["text"] = {"preset": str(models["image"])}
    with pytest.raises(ConfigError, match="has no stream 'text', only image"):
        RecipeConfig.parse(described)
    described["model"]["streams"]["text"] = {"preset": "bert-bse"}
    with pytest.raises(ConfigError, match="unknown model 'bert-bse'; did you mean 'bert-base'"):
        RecipeConfig.parse(described)


def test_fewer_layers_are_not_the_same_encoder(models, folder) -> None:
    cut = woven_recipe(folder, models, model={"streams": {"text": {"encoder": {"layers": 1}}}})
    with pytest.raises(ConfigError, match="the vectors of its stream differ by"):
        weave(cut, models)


def test_other_preprocessing_is_told(models, folder) -> None:
    changed = woven_recipe(folder, models, model={"streams": {"image": {"mean": [0.4, 0.5, 0.5]}}})
    with pytest.raises(ConfigError, match=r"prepares its inputs in another way .*mean"):
        weave(changed, models)


def test_recordings_may_be_shorter(models, folder) -> None:
    """The table of positions is cut, and both are compared at the smaller length."""
    short = woven_recipe(folder, models, model={"streams": {"sound": {"max_length": 30}}})
    found = weave(short, {"sound": models["sound"]})
    told = found.provenance["embeddings.sound.positions.position.table.weight"]
    assert told.note == "the first 30 of 50 positions"
    (compared,) = found.comparisons.values()
    assert compared.vectors < 1e-5 and compared.cut == "max_length 30 of 50"


def test_a_changed_weight_is_noticed(woven, models) -> None:
    source = sw.load(models["text"])
    with torch.no_grad():
        source.encoder.blocks[0].attention_norm.weight[0] += 0.01
    assert compare_stream(woven.model, source, Modality.TEXT).vectors > 1e-5

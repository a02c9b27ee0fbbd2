"""Complete tuning runs on the packed poems and emoji: trained, stored and loaded parameters."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import labelled, make_batch, random_examples, relative_error, tiny_config, tiny_model
from training_recipes import DATA, tuning_recipe

import skillweave as sw
from skillweave.analysis.inspection import inspect_folder
from skillweave.config import ConfigError
from skillweave.config.training import TuningConfig
from skillweave.evaluation.evaluator import measure
from skillweave.inference import open_run
from skillweave.recipe import RecipeConfig
from skillweave.storage import CHECKSUMS_FILE
from skillweave.surgery.carve import carve_run
from skillweave.tasks.resolve import model_with_tasks
from skillweave.training import train
from skillweave.training.partial_tuning import PartialTuning, freeze
from skillweave.training.run_folder import require_free
from skillweave.weights.adapters import ADAPTER_FILE, PREFIX, REFERENCE_FILE, frozen_part, is_tuned
from skillweave.weights.files import WeightsError

METHODS = ("prompt", "lora")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train(tuning_recipe(tmp_path_factory.mktemp("runs") / "base"), quiet=True)


def stored(run):
    return {
        name.removeprefix("base_model.model."): x
        for name, x in load_file(run / "last" / ADAPTER_FILE).items()
    }


@pytest.fixture(scope="module")
def tuned(base):
    return {
        m: train(tuning_recipe(base.parent / m, start_from=base, tuning=m), quiet=True)
        for m in METHODS
    }


def test_prompt_tuning_trains_prompts_norms_scale_and_the_last_layer_of_the_classifier(base, tuned):
    names = set(stored(tuned["prompt"]))
    norms = {name for name, x in sw.load(base).named_parameters() if "norm" in name}
    heads = {
        "contrastive.log_scale",
        "classification.classifier.weight",
        "classification.classifier.bias",
    }
    assert names == norms | {f"targets.{head}" for head in heads} | {
        f"encoder.blocks.{i}.attention.prompts" for i in (0, 1)
    }
    assert all(
        x.shape == (3, 8) for name, x in stored(tuned["prompt"]).items() if name.endswith("prompts")
    )


def test_lora_trains_low_rank_changes_of_the_encoder_alone(base, tuned):
    names = set(stored(tuned["lora"]))
    layers = {
        name
        for name, x in sw.load(base).named_parameters()
        if name.startswith("encoder.") and x.ndim == 2
    }
    assert names == {
        layer.replace(".weight", f".lora_{factor}.weight") for layer in layers for factor in "AB"
    }


@pytest.mark.parametrize("method", METHODS)
def test_only_what_was_trained_is_stored_and_the_rest_is_the_base_bit_for_bit(base, tuned, method):
    run, own = tuned[method], stored(tuned[method])
    assert not (run / "last" / "model.safetensors").exists()
    assert (run / "last" / ADAPTER_FILE).stat().st_size < (
        base / "last" / "model.safetensors"
    ).stat().st_size / 2
    before, after = sw.load(base).state_dict(), sw.load(run).state_dict()
    changed = {
        name for name, x in after.items() if name not in before or not torch.equal(before[name], x)
    }
    allowed = (
        own.keys()
        if method == "prompt"
        else {name.rpartition(".lora_")[0] + ".weight" for name in own}
    )
    assert changed and changed <= allowed and len(changed) > len(allowed) / 2
    assert {name.rpartition("/")[0] for name in load_file(run / "last" / "optimizer.safetensors")} == {
        name.replace(".lora_A.weight", ".parametrizations.weight.0.lora_A").replace(
            ".lora_B.weight", ".parametrizations.weight.0.lora_B"
        ) for name in own
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_tuned_run_resumes_exactly(base, tuned, method, tmp_path):
    plan = {"start_from": base, "tuning": method, "checkpoint_every": 1, "save_total_limit": 9}
    cut = train(tuning_recipe(tmp_path / "cut", **plan), quiet=True)
    for step in (4, 3):
        shutil.rmtree(cut / "checkpoints" / f"step-{step:08d}")
    train(tuning_recipe(cut, **plan), resume=True, quiet=True)
    for file in (ADAPTER_FILE, "optimizer.safetensors"):
        assert (cut / "last" / file).read_bytes() == (tuned[method] / "last" / file).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_a_tuned_run_is_measured_inspected_and_encodes_like_any(tuned, method):
    model, plan = open_run(tuned[method])
    assert set(measure(model, plan, "test", None, 10)) == set(DATA)
    assert sw.encode(model, "text_to_image", text=["红心"]).shape == (1, 8)
    found = inspect_folder(tuned[method] / "best")
    assert found["bytes"]["weights"] == (tuned[method] / "best" / ADAPTER_FILE).stat().st_size


def test_many_tunings_share_one_base_in_memory(base, tuned):
    model = sw.load(base)
    served = {method: sw.with_tuning(model, run) for method, run in tuned.items()}
    own = stored(tuned["prompt"])
    for name, x in model.named_parameters():
        assert (served["prompt"].get_parameter(name).data_ptr() == x.data_ptr()) == (
            name not in own
        )
    for method, one in served.items():
        alone = sw.load(tuned[method])
        for name, x in one.state_dict().items():
            assert torch.equal(x, alone.get_parameter(name))
        encoded = [sw.encode(m, "text_to_image", text=["月"]) for m in (one, alone)]
        # the last bit depends on the alignment of the weights in memory
        np.testing.assert_allclose(*encoded, atol=1e-6)


def test_a_new_target_is_learned_and_stored(base):
    for method in METHODS:
        run = train(
            tuning_recipe(
                base.parent / f"new-{method}", ("text_classification",), base, method, target="mine"
            ),
            quiet=True,
        )
        assert {name for name in stored(run) if name.startswith("targets.")} >= {
            f"targets.mine.{part}.{kind}"
            for part in ("pooler", "classifier")
            for kind in ("weight", "bias")
        }
        assert not any("image" in name for name in stored(run)), (
            "what the task does not use is not trained"
        )
        sw.load(run)


def test_naming_gets_a_correction_that_begins_at_zero(tmp_path):
    def naming(name, **more):
        plan = tuning_recipe(tmp_path / name, **more).model_dump(mode="json")
        plan["tasks"] = {
            "text_naming": {
                "data": DATA["text_classification"] | {"fraction": 0.1},
                "batch_size": 4,
            }
        }
        return train(RecipeConfig.parse(plan), quiet=True)

    base = naming("base")
    run = naming("run", start_from=base, tuning="prompt")
    part, classes = (
        "targets.similarity.corrections.text_naming",
        len(open_run(run)[1].task("text_naming").classes),
    )
    assert (
        stored(run)[f"{part}.weight"].shape == (classes, 8) and stored(run)[f"{part}.weight"].any()
    )
    assert {"targets.similarity.pairs.log_scale", f"{part}.bias"} <= set(stored(run))
    assert measure(*open_run(run), "test", None, 10)["text_naming"].table["n"] > 0
    assert "corrections" not in " ".join(stored(naming("low-rank", start_from=base, tuning="lora")))


def test_wordpieces_that_the_base_shares_stay_shared(tmp_path):
    for tuning, shared in ((None, []), ("prompt", ["word"])):
        plan = tuning_recipe(tmp_path, ("text_classification",), "base", tuning).model_dump(
            mode="json"
        )
        plan["model"]["streams"]["code"], plan["model"]["shared"] = {}, ["word"]
        model = model_with_tasks(RecipeConfig.parse(plan))
        assert model.shared == shared and (model.streams.code is not None) == bool(shared)
        assert model.streams.image is None, "no task uses it"


@pytest.mark.parametrize("method", METHODS)
def test_a_slice_of_a_tuned_model_is_read_from_both_folders(tuned, method):
    whole, part = (
        sw.load(tuned[method]).state_dict(),
        sw.load(tuned[method], tasks=["text_classification"]).state_dict(),
    )
    assert part and not any(name.startswith("embeddings.image") for name in part)
    assert all(torch.equal(x, whole[name]) for name, x in part.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_tuned_run_is_carved_into_a_folder_that_needs_no_base(tuned, method, tmp_path):
    about = carve_run(tuned[method], "text_to_image", tmp_path / "carved")
    assert not is_tuned(tmp_path / "carved")
    carved, plan = open_run(tmp_path / "carved")
    assert plan.recipe.tuning is None and carved.config.encoder.prompts == (
        3 if method == "prompt" else 0
    )
    whys = [encoder["why"] for encoder in about["encoders"]]
    assert all(why.startswith("prompts stand before") for why in whys) == (method == "prompt")


def test_a_tuned_model_saved_is_a_whole_one_and_may_be_tuned_again(base, tuned, tmp_path):
    whole = sw.load(tuned["lora"])
    whole.save_pretrained(tmp_path / "whole")
    assert all(
        torch.equal(x, whole.get_parameter(name))
        for name, x in sw.load(tmp_path / "whole").state_dict().items()
    )
    again = train(
        tuning_recipe(tmp_path / "again", start_from=tuned["lora"], tuning="prompt"), quiet=True
    )
    weight = "encoder.blocks.0.attention.output.weight"
    assert torch.equal(sw.load(again).get_parameter(weight), whole.get_parameter(weight))


def test_full_fine_tuning_is_what_it_is_without_a_section(base, tmp_path):
    runs = [
        train(tuning_recipe(tmp_path / str(t), start_from=base, tuning=t), quiet=True)
        for t in (None, "full")
    ]
    files = [(run / "last" / "model.safetensors").read_bytes() for run in runs]
    assert files[0] == files[1]


def test_faults_tell_what_to_do(base, tuned, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"method 'prompt' trains a part of a model; name that model in start_from",
    ):
        tuning_recipe(tmp_path / "a", tuning="prompt")
    with pytest.raises(
        ConfigError,
        match=r"lacks encoder\.blocks\.0\.attention\.qkv\.experts\.shared.*base: RUN/recipe\.yaml",
    ):
        train(
            tuning_recipe(tmp_path / "b", start_from=base, tuning="lora", route="dense"), quiet=True
        )
    require_free(tmp_path / "b")
    other = train(tuning_recipe(tmp_path / "other", seed=1), quiet=True)
    with pytest.raises(WeightsError, match="tuned on other weights than these"):
        sw.with_tuning(sw.load(other), tuned["prompt"])
    with pytest.raises(WeightsError, match="not a tuned model"):
        sw.with_tuning(sw.load(base), base)


def test_a_base_that_moved_or_changed_is_told(base, tmp_path):
    first = shutil.copytree(base, tmp_path / "first", symlinks=True)
    run = train(
        tuning_recipe(tmp_path / "run", start_from=first, tuning="prompt", steps=1), quiet=True
    )
    moved = first.rename(tmp_path / "moved")
    with pytest.raises(WeightsError, match=r"whose base .*first.* is not there; correct `base`"):
        sw.load(run)
    assert sw.with_tuning(sw.load(moved), run).config.encoder.prompts == 3
    file = run / "last" / REFERENCE_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base": str(moved / "best")}))
    sw.load(run)
    adapter = run / "last" / ADAPTER_FILE
    kept = load_file(adapter)
    lost = kept.popitem()[0].removeprefix(PREFIX)
    save_file(kept, adapter)
    (run / "last" / CHECKSUMS_FILE).unlink()
    with pytest.raises(WeightsError, match=f"not the tensors that tuning.json lists; .*{lost}"):
        sw.load(run)
    file.write_text("{}")
    with pytest.raises(WeightsError, match=r"tuning\.json: not JSON with base, frozen, scale and"):
        sw.load(run)


@pytest.mark.parametrize("route", ["skill", "dense", "attribute", "task", "token", "context"])
@pytest.mark.parametrize("dtype,bound", [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_low_rank_changes_merged_are_as_unmerged(route, dtype, bound, tmp_path):
    sparse = {"sparse": {"linears": {"route": route}}} if route not in ("skill", "dense") else {}
    config = tiny_config(route, encoder=sparse)
    base, model = tiny_model(config, dtype), tiny_model(config, dtype)
    model.load_state_dict(base.state_dict())
    freeze(model, TuningConfig(method="lora", rank=2), set())
    batches = []
    for task in ("to_image", "masked_code"):
        examples = random_examples(task, [[4, 5], [6, 5]], config, dtype)
        batches.append(make_batch(task, labelled(task, examples, np.random.default_rng(0)), config))
    assert all(relative_error(model(batch).loss, base(batch).loss) < bound for batch in batches), (
        "a fresh change is none"
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0, 0.3)
    folder = tmp_path / "tuned"
    folder.mkdir()
    names = base.state_dict()
    PartialTuning(TuningConfig(method="lora", rank=2), "base", frozen_part(names, names, ())).save(
        model, folder
    )
    merged = base.with_tuning(folder)
    for batch in batches:
        assert relative_error(merged(batch).loss, model(batch).loss) < bound
        assert relative_error(base(batch).loss, model(batch).loss) > 1e-3

"""A carved model is the model's own function of one task, made of dense layers alone."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import STREAMS, TARGETS, TASKS, VOCABULARY, relative_error, tiny_config, tiny_model
from tiny_run import make_run
from torch.utils._python_dispatch import TorchDispatchMode

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.evaluation.agreement import SAME, differences, made_batch
from skillweave.model.model import Model
from skillweave.surgery import carve as carving
from skillweave.surgery.carve import carve, carve_lines, carve_run, task_encoders

ROUTES = {
    "skill": {"qkv": {"route": "skill"}},
    "skills that modalities share": {
        "qkv": {"route": "skill", "skills": {"image": "vision", "video": "vision"}}
    },
    "skills of causal spans": {"qkv": {"route": "skill", "skills": {"text/causal": "write"}}},
    "attribute": {"linears": {"route": "attribute", "experts": 4}},
    "modality, every other layer": {"linears": {"route": "modality", "experts": 4}, "every": 2},
    "task": {"linears": {"route": "task", "experts": 4}},
    "three of four": {"linears": {"route": "attribute", "experts": 4, "active": 3}},
    "skill and whole feed-forwards": {
        "qkv": {"route": "skill"},
        "feed_forward": {"route": "modality", "active": 1},
    },
    "the first layer of the feed-forward": {"feed_forward_in": {"route": "attribute"}},
}


def model_of(sparse: dict, dtype: torch.dtype = torch.float64) -> Model:
    torch.manual_seed(2)
    return tiny_model(tiny_config(encoder={"sparse": sparse}), dtype)


@pytest.mark.parametrize("sparse", ROUTES.values(), ids=ROUTES)
def test_every_task_answers_as_before(sparse) -> None:
    model, dense = model_of(sparse), model_of({})
    for task in TASKS:
        carved, batch = carve(model, task), made_batch(model, task)
        batch = type(batch)(
            batch.layout,
            tuple(x.double() if x.is_floating_point() else x for x in batch.inputs),
            batch.lengths,
        )
        assert differences(model, carved, [batch])[task] <= 1e-12
        assert not carved.training and list(carved.config.tasks) == [task]
        assert set(carved.active_parameters(task)) == set(carved.state_dict())
        if len(set(model.conditions(task))) == 1:
            assert (
                carved.count_parameters()
                == dense.count_parameters(task)
                <= model.count_parameters(task)
            )
        assert {m.value for m in carved.config.streams.present()} == {
            span["modality"] for span in TASKS[task]["spans"]
        }


@pytest.mark.parametrize(
    "sparse", [ROUTES["skill"], ROUTES["attribute"]], ids=["skill", "attribute"]
)
def test_a_decoder_and_a_streams_own_encoder_merge_too(sparse) -> None:
    """The decoder goes with the task that writes, and with no other; it is not exported."""
    spans = [
        {"modality": "text"},
        {"modality": "text", "role": "target", "attention": "causal", "encoder_pass": 1},
    ]
    tasks = {name: TASKS[name] for name in ("classify", "to_image")} | {
        "write": {"spans": spans, "targets": {"lm": 1.0}}
    }
    sizes = {"layers": 2, "heads": 3, "feed_forward": 20, "dropout": 0, "attention_dropout": 0}
    routed = {"linears": {"route": "attribute", "experts": 4}}
    streams = {**STREAMS, "image": {**STREAMS["image"], "encoder": {**sizes, "sparse": routed}}}
    config = tiny_config(
        streams=streams,
        tasks=tasks,
        targets={**TARGETS, "lm": {}},
        encoder={"sparse": sparse},
        decoder={**sizes, "sparse": routed},
        target_embedding={
            "max_length": 20,
            "vocabulary": VOCABULARY,
            "embedding": ["word", "position"],
        },
    )
    model = tiny_model(config)
    for task in tasks:
        carved, batch = carve(model, task), made_batch(model, task)
        batch = replace(
            batch, inputs=tuple(x.double() if x.is_floating_point() else x for x in batch.inputs)
        )
        assert differences(model, carved, [batch])[task] <= 1e-12
        assert (carved.decoder is not None) == (task == "write")
        assert not any("gate" in name for name in carved.state_dict())
        assert set(carved.active_parameters(task)) == set(carved.state_dict())
    assert list(task_encoders(model, "write")) == ["text"]


def test_of_one_condition_the_merged_weight_is_the_sum_over_its_experts() -> None:
    model = model_of(ROUTES["three of four"])
    carved = carve(model, "classify")
    (condition,) = model.conditions("classify")
    for layer, block in enumerate(model.encoder.blocks):
        gates = block.attention.qkv.route.gates(condition)
        assert len(gates) == 3
        for linear, name in (
            (block.attention.qkv, "qkv.experts.shared"),
            (block.attention.output, "output"),
        ):
            expected = sum(gate * linear.experts[expert].weight for expert, gate in gates.items())
            found = carved.get_parameter(f"encoder.blocks.{layer}.attention.{name}.weight")
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_is_left_of_the_routes() -> None:
    """Nothing where all spans share their weights, else a table as short as can be."""

    def left(route: str, task: str) -> dict | None:
        sparse = carve(model_of(ROUTES[route]), task).config.encoder.sparse
        assert sparse.linears.route == "dense"
        return sparse.qkv.skills if sparse.qkv.route == "skill" else None

    assert (
        left("skill", "classify")
        is left("task", "denoising")
        is left("attribute", "to_code")
        is None
    )
    assert left("attribute", "denoising") == {
        "text": "text",
        "video": "video",
        "text/causal": "text_causal",
    }
    assert left("attribute", "captioning") == {"image": "image", "text": "text"}
    assert left("modality, every other layer", "denoising") == {"text": "text", "video": "video"}
    own = carve(model_of(ROUTES["skills that modalities share"]), "to_image").state_dict()
    assert {name.split(".")[6] for name in own if ".qkv." in name} == {"text", "vision"}


def test_a_route_that_looks_at_the_data_is_refused() -> None:
    for route in ("token", "context"):
        model = model_of({"linears": {"route": route}})
        with pytest.raises(
            ConfigError,
            match=(
                rf"qkv has route '{route}', which looks at the data.*sw.load\(path,"
                r" tasks=\['classify'\]\)"
            ),
        ):
            carve(model, "classify")
    with pytest.raises(ConfigError, match=r"feed_forward mixes 2 whole feed-forwards.*`active: 1`"):
        carve(model_of({"feed_forward": {"route": "modality"}}), "classify")
    with pytest.raises(ConfigError, match="unknown task 'clasify'; did you mean 'classify'"):
        carve(model_of(ROUTES["skill"]), "clasify")


def test_the_carved_model_owns_its_weights(tmp_path: Path) -> None:
    model = model_of(ROUTES["attribute"], torch.float32)
    carved = carve(model, "transcribe")
    before = {name: x.clone() for name, x in carved.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(x, before[name]) for name, x in carved.state_dict().items())
    carved.save_pretrained(tmp_path)
    again = sw.load(tmp_path)
    assert again.config == carved.config and all(
        torch.equal(x, before[name]) for name, x in again.state_dict().items()
    )


class Trace(TorchDispatchMode):
    """The operators that run, with the shapes of what they make."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        self.operators.append(
            (str(operator), tuple(made.shape) if isinstance(made, torch.Tensor) else ())
        )
        return made


def trace(model: Model, task: str, **resolved) -> list[tuple[str, tuple[int, ...]]]:
    with torch.no_grad(), Trace() as found:
        model(made_batch(model, task), **resolved)
    return found.operators


@pytest.mark.parametrize("route", ["skill", "attribute", "task", "modality, every other layer"])
@pytest.mark.parametrize("task", ["classify", "transcribe", "to_image", "to_code"])
def test_carved_and_frozen_models_run_the_operators_of_a_dense_one(route: str, task: str) -> None:
    dense = trace(tiny_model(tiny_config(encoder={"sparse": {}}), torch.float32), task)
    model = model_of(ROUTES[route], torch.float32)
    assert trace(carve(model, task), task) == dense
    assert trace(model, task, resolved=model.resolve(task)) == dense
    assert any("mm" in name for name, _ in dense)


def test_spans_of_one_pass_with_weights_of_their_own_cost_a_split_not_a_merge() -> None:
    """A dense model runs both spans in one product; here each has its own, of the same
    arithmetic."""
    model = model_of(ROUTES["skill"], torch.float32)
    found = Counter(name for name, _ in trace(carve(model, "masked_code"), "masked_code"))
    dense = Counter(
        name
        for name, _ in trace(
            tiny_model(tiny_config(encoder={"sparse": {}}), torch.float32), "masked_code"
        )
    )
    assert {name.split(".")[1] for name in found - dense} <= {
        "split_with_sizes",
        "cat",
        "addmm",
        "t",
        "linear",
    }
    assert trace(carve(model, "masked_code"), "masked_code") == trace(model, "masked_code")


def test_encoders_are_the_passes() -> None:
    model = model_of(ROUTES["attribute"])
    assert list(task_encoders(model, "to_image")) == ["text", "image"] and list(
        task_encoders(model, "masked_code")
    ) == ["code_text"]
    for encoder in task_encoders(model, "to_image").values():
        assert not encoder.config.targets and encoder.config.encoder.sparse.qkv.route == "dense"
    tasks = {
        "pairs": {
            "spans": [{"modality": "text"}, {"modality": "text", "encoder_pass": 1}],
            "targets": {},
        }
    }
    twins = tiny_model(
        tiny_config(tasks=tasks, streams={"text": STREAMS["text"]}, targets=TARGETS | {}, shared=[])
    )
    assert list(task_encoders(twins, "pairs")) == ["text", "text_1"]
    with pytest.raises(ConfigError, match="unknown task"):
        task_encoders(model, "nothing")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("carve"))


@pytest.fixture(scope="module")
def carved(run: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "small"
    carve_run(run, "text_to_image", out)
    return out


def test_the_folder_is_a_run_of_one_task(run: Path, carved: Path) -> None:
    small, whole = sw.load(carved), sw.load(run)
    assert sorted(file.name for file in carved.iterdir()) == sorted(
        [
            "SHA256SUMS",
            "assets",
            "carve.json",
            "config.json",
            "encoders",
            "model.safetensors",
            "recipe.yaml",
        ]
    )
    assert list(small.assets) == ["text_tokenizer.json"]
    texts = {"text": ["red square", "a blue one"]}
    expected, found = (
        torch.from_numpy(sw.encode(m, "text_to_image", **texts)) for m in (whole, small)
    )
    assert relative_error(found, expected) <= 1e-6
    recipe = sw.read_recipe(carved / "recipe.yaml")
    assert (
        list(recipe.tasks) == ["text_to_image"]
        and recipe.model == small.config
        and recipe.folder == carved
    )


def test_the_report(run: Path, carved: Path) -> None:
    about = json.loads((carved / "carve.json").read_text("utf-8"))
    whole = sw.load(run)
    assert (
        about["samples"] == {"split": "validation", "number": 6}
        and about["largest_relative_error"] <= SAME
    )
    assert about["parameters"] == {
        "whole": whole.count_parameters(),
        "carved": whole.count_parameters("text_to_image"),
    }
    assert [(t["name"], t["format"], t["why"]) for t in about["encoders"]] == [
        ("text", "RobertaPreLayerNormModel", ""),
        ("image", "ViTModel", ""),
    ]
    assert all(
        (carved / t["path"]).is_dir() and t["largest_relative_error"] <= SAME
        for t in about["encoders"]
    )
    assert carve_lines(about)[0].startswith(
        "compared on 6 validation samples: answers differ by at most"
    )


def test_smaller_weights_say_what_they_cost(run: Path, tmp_path: Path) -> None:
    sizes = {}
    for stored in ("float32", "bf16", "int8"):
        weights = carve_run(run, "speech_recognition", tmp_path / stored, stored, export=False)[
            "weights"
        ]
        assert weights["stored"] == stored and (weights["largest_relative_error"] > 0) == (
            stored != "float32"
        )
        assert weights["largest_relative_error"] < 0.5
        sizes[stored] = weights["bytes"]
        assert (
            sw.load(tmp_path / stored)
            .get_parameter("encoder.blocks.0.attention.output.weight")
            .dtype
            == torch.float32
        )
    assert sizes["int8"] < sizes["bf16"] < sizes["float32"]


def test_nothing_is_written_where_answers_differ(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(carving, "differences", lambda *_: {"text_to_code": 1e-3})
    with pytest.raises(
        ConfigError, match=r"the carved model: answers differ from the model's by 1\.0e-03"
    ):
        carve_run(run, "text_to_code", tmp_path / "out")
    monkeypatch.setattr(carving, "differences", lambda *_: {"text_to_code": float("nan")})
    with pytest.raises(ConfigError, match="nothing was written"):
        carve_run(run, "text_to_code", tmp_path / "out")
    monkeypatch.undo()
    wrong = {
        "name": "text",
        "format": "BertModel",
        "path": "encoders/text",
        "why": "",
        "largest_relative_error": 1e-2,
    }
    monkeypatch.setattr(carving, "export_encoder", lambda *_: wrong)
    with pytest.raises(
        ConfigError, match="the BertModel of encoder text: answers differ from the carved model's"
    ):
        carve_run(run, "text_to_code", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_keeps_experts_that_cannot_merge(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", feed_forward={"route": "token", "experts": 3})
    out = tmp_path / "small"
    with pytest.raises(ConfigError, match=r"encoder\.feed_forward has route 'token'"):
        carve_run(whole, "text_classification", out)
    with pytest.raises(ConfigError, match="--keep-experts --no-export"):
        carve_run(whole, "text_classification", out, keep_experts=True)
    assert not out.exists()
    about = carve_run(whole, "text_classification", out, export=False, keep_experts=True)
    small = sw.load(out)
    assert about["encoders"] == [] and about["largest_relative_error"] <= SAME
    assert {choice.site for choice in small.choices()} == {"feed_forward"}
    assert about["parameters"]["carved"] == small.count_parameters() < about["parameters"]["whole"]


def test_without_samples_there_is_no_proof(run: Path, tmp_path: Path) -> None:
    model = sw.load(run)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="not a run folder"):
        carve_run(tmp_path / "model", "text_to_code", tmp_path / "out")
    assert not (tmp_path / "out").exists()

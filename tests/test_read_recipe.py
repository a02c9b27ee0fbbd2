"""Recipes from files: bases, overrides, and the way to text and back."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skillweave.components.targets import TARGETS
from skillweave.config import Config, ConfigError
from skillweave.config.layering import load_yaml, merge
from skillweave.model.config import ModelConfig
from skillweave.model.folders import begin_from
from skillweave.recipe import RecipeConfig, find_recipe, read_recipe
from skillweave.tasks.resolve import resolve

BASE = """
name: base
model:
  width: 16
  streams: {text: {max_length: 9}, image: {size: 8, patch: 4}}
  encoder: {heads: 4, layers: 3}
tasks:
  text_classification: {data: {path: a.csv}, weight: 2}
  text_to_image: {data: {path: b.csv}}
training: {steps: 5}
"""


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, "utf-8")
    return folder / name


def test_overrides(tmp_path: Path) -> None:
    file = write(tmp_path, "r.yaml", BASE)
    training = [
        "training.optimizer.learning_rate=1e-3",
        "training.steps=null",
        "training.epochs=1.5",
    ]
    others = [
        "name=七言",
        "limits.too_long=skip",
        "tasks.text_to_image=null",
        "model.streams.text.max_length=11",
    ]
    recipe = read_recipe(file, [*training, *others])
    assert recipe.training.optimizer.learning_rate == 1e-3
    assert (recipe.name, recipe.training.steps, recipe.training.epochs) == ("七言", None, 1.5)
    assert (
        set(recipe.tasks) == {"text_classification"}
        and recipe.tasks["text_classification"].weight == 2
    )
    assert (recipe.model.streams.text.max_length, recipe.limits.too_long) == (11, "skip")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps", r"override 'training\.steps': write it as path\.to\.key=value"),
        ("training.setps=3", r"training\.setps: unknown key; did you mean 'steps'"),
        ("training.steps=many", r"training\.steps: .*\(got 'many'\)"),
        ("training.steps=[1", r"override 'training\.steps=\[1': not valid YAML"),
        ("training.steps.more=1", r"training\.steps: "),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(write(tmp_path, "r.yaml", BASE), [override])


def test_one_task_alone_takes_its_share_of_the_steps(tmp_path: Path) -> None:
    file = write(tmp_path, "r.yaml", BASE)
    recipe = read_recipe(file, ["only=[text_to_image]", "training.steps=30"])
    assert (list(recipe.tasks), recipe.training.steps, recipe.only) == (["text_to_image"], 10, [])
    with pytest.raises(
        ConfigError, match="unknown task 'text_to_imge'; did you mean 'text_to_image'"
    ):
        read_recipe(file, ["only=[text_to_imge]"])
    with pytest.raises(ConfigError, match=r"a share of the mixture's steps needs training\.steps"):
        read_recipe(file, ["only=[text_to_image]", "training.steps=null", "training.epochs=1"])


def test_recipes_of_the_package_are_found_by_name() -> None:
    assert find_recipe("quickstart").is_file() and find_recipe("own.yaml") == Path("own.yaml")
    with pytest.raises(ConfigError, match="unknown recipe 'quikstart'; did you mean 'quickstart'"):
        find_recipe("quikstart")


def test_bases_merge_in_order(tmp_path: Path) -> None:
    write(tmp_path, "parts/base.yaml", BASE)
    write(tmp_path, "more.yaml", "model: {encoder: {layers: 7, heads: 2}}\ntraining: {seed: 3}\n")
    above = "model: {encoder: {heads: 8}, streams: {image: null}}\ntasks: {text_to_image: null}\n"
    recipe = read_recipe(write(tmp_path, "r.yaml", "base: [parts/base.yaml, more.yaml]\n" + above))
    assert (recipe.model.encoder.layers, recipe.model.encoder.heads, recipe.model.width) == (
        7,
        8,
        16,
    )
    assert (recipe.training.steps, recipe.training.seed) == (5, 3)
    assert recipe.model.streams.image is None and set(recipe.tasks) == {"text_classification"}


def test_a_base_may_have_a_base(tmp_path: Path) -> None:
    write(tmp_path, "a/base.yaml", BASE)
    write(tmp_path, "a/middle.yaml", "base: base.yaml\nname: middle\n")
    recipe = read_recipe(write(tmp_path, "r.yaml", "base: a/middle.yaml\n"))
    assert recipe.name == "middle" and recipe.training.steps == 5


def test_two_recipes_may_share_a_base(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE)
    write(tmp_path, "left.yaml", "base: base.yaml\nname: left\n")
    write(tmp_path, "right.yaml", "base: base.yaml\ntraining: {seed: 2}\n")
    recipe = read_recipe(write(tmp_path, "r.yaml", "base: [left.yaml, right.yaml]\n"))
    assert (recipe.name, recipe.training.seed) == ("base", 2)


def test_cycles_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    write(tmp_path, "b.yaml", "base: a.yaml\n")
    with pytest.raises(
        ConfigError, match=r"a recipe cannot be its own base \(.*a\.yaml → .*b\.yaml\)"
    ):
        read_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "a recipe is a mapping with model, tasks and training, not a list"),
        ("", "3 faults"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(write(tmp_path, "r.yaml", text))


def test_absent_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: no such recipe"):
        read_recipe(tmp_path / "x.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match=r"b\.yaml: not valid YAML"):
        read_recipe(tmp_path / "b.yaml")


@pytest.mark.parametrize(("name", "text"), [("m.yaml", "a: ["), ("m.json", "{"), ("m.yaml", "[1]")])
def test_broken_model_files(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=r"not valid|a mapping of settings"):
        ModelConfig.from_file(write(tmp_path, name, text))
    with pytest.raises(ConfigError, match="no such file"):
        ModelConfig.from_file(tmp_path / "absent.yaml")


def test_model_files_in_yaml_and_json_are_alike(tmp_path: Path) -> None:
    config = RecipeConfig.parse(yaml.safe_load(BASE)).model
    data = config.model_dump(mode="json")
    assert ModelConfig.from_file(write(tmp_path, "m.json", json.dumps(data))) == config
    assert ModelConfig.from_file(write(tmp_path, "m.yaml", yaml.safe_dump(data))) == config


@given(
    steps=st.none() | st.integers(1, 10**6),
    rate=st.floats(1e-8, 1, allow_nan=False),
    heads=st.sampled_from([1, 2, 4]),
    name=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9),
    streams=st.sets(st.sampled_from(["text", "image", "sound", "video", "code"]), min_size=1),
    route=st.sampled_from(["dense", "skill"]),
    max_grad_norm=st.none() | st.floats(0.1, 9),
)
def test_dump_and_parse_is_identity(
    steps: int | None,
    rate: float,
    heads: int,
    name: str,
    streams: set[str],
    route: str,
    max_grad_norm: float | None,
) -> None:
    data: dict[str, Any] = {
        "name": name,
        "model": {
            "width": 16,
            "streams": {s: {} for s in streams},
            "encoder": {
                "heads": heads,
                "sparse": {"qkv": {"route": route, "skills": {"code": "text"}}},
            },
            "targets": {"clr": {"kind": "contrastive"}},
        },
        "tasks": {
            "a": {"data": {"path": {"train": "x", "test": "y"}, "columns": {"text": ["a", "b"]}}}
        },
        "training": {
            "steps": steps,
            "epochs": None if steps else 2.5,
            "optimizer": {"learning_rate": rate, "max_grad_norm": max_grad_norm},
        },
    }
    recipe = RecipeConfig.parse(data)
    dumped = recipe.model_dump(mode="json")
    assert RecipeConfig.parse(dumped) == recipe
    assert RecipeConfig.parse(json.loads(json.dumps(dumped))) == recipe
    assert RecipeConfig.parse(yaml.safe_load(yaml.safe_dump(dumped, allow_unicode=True))) == recipe


LEAVES = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
TREES = st.dictionaries(st.sampled_from("abc"), st.deferred(lambda: LEAVES | TREES), max_size=3)


@given(TREES, TREES)
def test_merge(below: dict[str, Any], above: dict[str, Any]) -> None:
    result = merge(below, above)
    assert merge(result, above) == result
    assert merge(below, {}) == below and merge({}, above) == above
    assert set(result) == set(below) | set(above)
    for key in result:
        if key not in above:
            assert result[key] == below[key]
        elif isinstance(above[key], dict) and isinstance(below.get(key), dict):
            assert result[key] == merge(below[key], above[key])
        else:
            assert result[key] == above[key]


def test_the_fingerprint_of_data_goes_with_their_path(tmp_path: Path) -> None:
    """A run's recipe stores it; a recipe over that one, with other data, has none."""
    own = {"path": "a.jsonl", "fingerprint": "3 rows, abc", "limit": 5}
    below = {"tasks": {"text_classification": {"data": own}}}
    other = {"tasks": {"text_classification": {"data": {"path": {"train": "b.jsonl"}}}}}
    kept = {"tasks": {"text_classification": {"data": {"fraction": 0.5}}}}
    data = merge(below, other, RecipeConfig)["tasks"]["text_classification"]["data"]
    assert data == {"path": {"train": "b.jsonl"}, "limit": 5}
    data = merge(below, kept, RecipeConfig)["tasks"]["text_classification"]["data"]
    assert data == {**own, "fraction": 0.5}


def test_null_takes_a_mapping_away_and_is_a_value_elsewhere() -> None:
    below = {"a": {"b": {"c": 1}, "d": 2}, "e": {"f": 3}}
    assert merge(below, {"a": {"b": None, "d": None}, "e": None, "g": None}) == {
        "a": {"d": None},
        "g": None,
    }
    assert below == {"a": {"b": {"c": 1}, "d": 2}, "e": {"f": 3}}


@pytest.mark.parametrize(
    "below", ["training: {steps: 5}", "training: {steps: 5, optimizer: {max_grad_norm: 2}}"]
)
def test_null_switches_clipping_off(tmp_path: Path, below: str) -> None:
    write(tmp_path, "base.yaml", BASE.replace("training: {steps: 5}", below))
    for text in ("", "training: {optimizer: {max_grad_norm: null}}\n"):
        file = write(tmp_path, "r.yaml", "base: base.yaml\n" + text)
        assert (
            read_recipe(
                file, [] if text else ["training.optimizer.max_grad_norm=null"]
            ).training.optimizer.max_grad_norm
            is None
        )


def test_schema_describes_every_field() -> None:
    schema = json.loads(json.dumps(RecipeConfig.model_json_schema()))
    objects = [schema, *(d for d in schema["$defs"].values() if d.get("type") == "object")]
    kinds = [Config]
    for kind in kinds:
        kinds += kind.__subclasses__()
    titles = {o["title"] for o in objects}
    reachable = {k.__name__ for k in kinds}
    assert (
        titles <= reachable
        and {"RecipeConfig", "ModelConfig", "TrainingConfig", "CodeStream"} <= titles
    )
    for described in objects:
        assert described["additionalProperties"] is False
        for name, field in described["properties"].items():
            assert field.get("description") or name == "kind", (
                f"{described['title']}.{name} has no docstring"
            )


def test_schema_has_the_defaults_that_parsing_gives(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, "r.yaml", BASE)).model_dump(mode="json")
    properties = RecipeConfig.model_json_schema()["$defs"]["TrainingConfig"]["properties"]
    for name, value in recipe["training"].items():
        if name not in ("steps", "optimizer"):
            assert properties[name]["default"] == value


def test_load_yaml_drops_the_base_key(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE)
    assert "base" not in load_yaml(write(tmp_path, "r.yaml", "base: base.yaml\n"))


def test_a_model_begins_from_a_published_one(tmp_path: Path) -> None:
    """By name, by a file of TencentPretrain's, with what stands beside it on top; and it is gone
    from what is stored."""
    vit = ModelConfig.parse(
        {"preset": "vit-base", "encoder": {"layers": 2}, "streams": {"image": {"size": 32}}}
    )
    assert (vit.encoder.layers, vit.encoder.norm_position, vit.streams.image.patch) == (
        2,
        "pre",
        16,
    )
    assert "preset" not in vit.model_dump(mode="json", exclude_none=True)
    file = write(
        tmp_path,
        "bert.json",
        json.dumps(
            {"embedding": ["word", "pos", "seg"], "encoder": "transformer", "target": ["mlm"]}
        ),
    )
    bert = ModelConfig.parse({"preset": str(file), "streams": {"text": {"vocabulary": 99}}})
    assert (bert.streams.text.vocabulary, bert.encoder.layers, set(bert.targets)) == (
        99,
        12,
        {"mlm"},
    )


def test_a_recipe_of_a_published_model(tmp_path: Path) -> None:
    sizes = "{preset: bert-base, width: 16, encoder: {heads: 2, layers: 1}}"
    text = (
        f"model: {sizes}\ntasks: {{masked_text: {{data: {{path: 'pack:poems', limit:"
        " 40}}}\ntraining: {steps: 1}"
    )
    recipe = read_recipe(write(tmp_path, "r.yaml", text))
    model = resolve(recipe).model
    assert model.encoder.layers == 1 and set(model.tasks) == {"masked_text"}
    with pytest.raises(
        ConfigError, match=r"model: preset: unknown model 'bert-bas'; did you mean 'bert-base'"
    ):
        read_recipe(write(tmp_path, "r.yaml", text.replace("bert-base", "bert-bas")))


def test_a_recipe_has_the_model_that_it_starts_from(tmp_path: Path) -> None:
    """Its parts and its targets' options, without what its tasks and their labels gave it; what a
    recipe says is on top."""
    targets = {
        "classification": {"classes": ["a", "b"], "pooling": "mean"},
        "mlm": {"activation": "relu"},
    }
    tasks = {"old": {"spans": [{"modality": "text"}], "targets": {"classification": 1.0}}}
    encoder = {"heads": 2, "layers": 1, "activation": "relu"}
    streams = {"text": {"vocabulary": 40, "max_length": 9}}
    given = {
        "width": 16,
        "streams": streams,
        "encoder": encoder,
        "targets": targets,
        "tasks": tasks,
    }
    given = ModelConfig.parse(given).model_dump(mode="json")
    write(tmp_path, "run/best/config.json", json.dumps(given))
    text = (
        f"start_from: {tmp_path / 'run'}\ntasks: {{masked_text: {{data: {{path:"
        " 'pack:poems'}}}\ntraining: {steps: 1}\n"
    )
    model = read_recipe(write(tmp_path, "r.yaml", text)).model
    assert (model.encoder, model.streams.text.max_length, model.tasks) == (
        ModelConfig.parse(given).encoder,
        9,
        {},
    )
    assert (model.targets["classification"].classes, model.targets["classification"].pooling) == (
        [],
        "mean",
    )
    changed = text + f"model: {{preset: {tmp_path / 'run'}, encoder: {{layers: 3}}}}"
    assert read_recipe(write(tmp_path, "r.yaml", changed)).model.encoder.layers == 3
    added = read_recipe(
        write(tmp_path, "r.yaml", text + "model: {targets: {further: {kind: classification}}}")
    ).model
    assert (
        set(added.targets) == {"classification", "mlm", "further"}
        and added.encoder == model.encoder
    )
    with pytest.raises(
        ConfigError, match=r"start_from: .*absent: no such folder; train a run first"
    ):
        read_recipe(write(tmp_path, "r.yaml", text.replace("/run", "/absent")))
    write(tmp_path, "run/best/config.json", '{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"a Hugging Face model .bert.; convert it first"):
        read_recipe(write(tmp_path, "r.yaml", text))


def test_what_labels_give_is_not_taken_over(tmp_path: Path) -> None:
    """A model that begins from another one leaves behind the settings that training data fill
    in."""
    others = {kind: {"kind": kind, "pooling": "mean"} for kind in TARGETS}
    targets = {
        kind: {**others[kind], **dict.fromkeys(TARGETS[kind].fitted, "of the labels")}
        for kind in TARGETS
    }
    write(tmp_path, "config.json", json.dumps({"width": 16, "targets": targets}))
    assert begin_from(tmp_path) == {"width": 16, "targets": others}


@pytest.mark.parametrize(
    ("kind", "fitted"),
    [
        ("classification", {"classes"}),
        ("multi_label", {"classes"}),
        ("token_labels", {"classes"}),
        ("ctc", {"characters"}),
        ("regression", {"mean", "deviation"}),
        ("cosine", {"least", "most"}),
        ("prompt", {"words"}),
        ("similarity", {"corrections"}),
    ],
)
def test_what_labels_give(kind: str, fitted: set[str]) -> None:
    assert set(TARGETS[kind].fitted) == fitted


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("training.accelerator=gpu", "unknown value 'gpu'; did you mean 'cuda'?"),
        ("training.accelerator=tpu", "unknown value 'tpu'; valid names: auto, cpu"),
        ("training.precision=fp32", "did you mean 'float32'?"),
        ("tasks.t.data.fractions=[0.8, 0.2]", "three shares, of train, validation and test"),
        ("tasks.t.data.fractions=0.8", "three shares, of train, validation and test"),
        ("tasks.t.data.path=null", "data.path: name where the samples come from"),
        ("tasks.t.data.path={}", "data.path: name where the samples come from"),
        ("tasks.t.data.columns={text: null}", "columns.text: null is no value here"),
    ],
)
def test_a_fault_is_told_once_with_what_to_write(tmp_path, setting, told):
    tasks = {"t": {"kind": "masked_text", "data": {"path": "a.txt"}}}
    recipe = {"model": {"preset": "bert-base"}, "tasks": tasks, "training": {"steps": 1}}
    file = write(tmp_path, "r.yaml", yaml.safe_dump(recipe))
    with pytest.raises(ConfigError, match="1 fault\n") as raised:
        read_recipe(file, [setting])
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"learning_rate": 1},
            "learning_rate: unknown key here; it is an option at training.optimizer.learning_rate",
        ),
        (
            {"training": {"batch_size": 1}},
            "training.batch_size: unknown key here; it is an option at tasks.NAME.batch_size",
        ),
        ({"precision": "bf16"}, "an option at model.precision and at training.precision"),
    ],
)
def test_a_key_in_the_wrong_place_is_told_its_place(settings: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        RecipeConfig.parse(settings)

"""A route of another package is one class: everything else learns about it from the class."""

import pytest
import torch
from tiny import TASKS, relative_error, tiny_config, tiny_model

from skillweave.analysis.experts import data_choices, uses_by_data, uses_by_layout
from skillweave.config import ConfigError
from skillweave.config.encoder import RouteConfig, SparseConfig
from skillweave.evaluation.agreement import differences, made_batch
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.surgery.carve import carve

pytestmark = pytest.mark.usefixtures("toys")


def model_of(sparse: dict) -> Model:
    torch.manual_seed(0)
    return tiny_model(tiny_config(encoder={"sparse": sparse}), torch.float32)


def test_a_route_that_the_layout_decides(tmp_path) -> None:
    model = model_of({"linears": {"route": "by_direction", "share": 0.4}})
    assert ModelConfig.parse(model.config.model_dump(mode="json")) == model.config
    shares = {(u.task, u.span): u.shares for u in uses_by_layout(model)}
    assert shares["captioning", "image"] == pytest.approx({"full": 0.8, "causal": 0.2})
    assert shares["captioning", "text/causal"] == pytest.approx({"full": 0.2, "causal": 0.8})
    assert not uses_by_layout(model, only_learned=True) and not data_choices(model)
    model.save_pretrained(tmp_path)
    for task in TASKS:
        batch = made_batch(model, task)
        part = Model.from_pretrained(tmp_path, tasks=[task])
        with torch.no_grad():
            for target, logits in model(batch).logits.items():
                assert relative_error(part(batch).logits[target], logits) == 0
        assert differences(model, carve(model, task), [batch])[task] <= 1e-5


def test_a_route_that_looks_at_the_data() -> None:
    model = model_of({"feed_forward": {"route": "alternating", "experts": 3}})
    batch = made_batch(model, "classify")
    (first, *_) = uses_by_data(model, model.assignments(batch))
    turns = [t % 3 for t in range(batch.tokens)]
    expected = [turns.count(e) / len(turns) for e in range(3)]
    assert list(first.shares.values()) == pytest.approx(expected, abs=1e-6)
    dense = model_of({})
    assert model.count_parameters("classify") == dense.count_parameters("classify")
    with pytest.raises(ConfigError, match=r"'alternating', which looks at the data.*by_direction"):
        carve(model, "classify")


@pytest.mark.parametrize(
    ("route", "told"),
    [
        (
            {"route": "by_directoin"},
            r"qkv.route: unknown value 'by_directoin'; did you mean 'by_direction'",
        ),
        ({"route": "tokn"}, r"qkv.route: unknown value 'tokn'; did you mean 'token'"),
        ({"route": "folow"}, r"qkv.route: unknown value 'folow'; did you mean 'follow'"),
        ({"route": "by_direction", "share": 2}, r"qkv.share: .*less than or equal to 1 \(got 2\)"),
        ({"route": "token", "share": 0.5}, r"qkv.share: unknown key"),
        ({"route": "token", "expert": 3}, r"qkv.expert: unknown key; did you mean 'experts'"),
        ({"expert": 3}, r"qkv.expert: unknown key; did you mean 'experts'"),
    ],
)
def test_faults_name_what_is_valid(route: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        SparseConfig.parse({"qkv": route})


def test_the_schema_lists_all_routes() -> None:
    schema = RouteConfig.model_json_schema()
    routes = schema["properties"]["route"]["enum"]
    assert {"dense", "skill", "token", "context", "modality", "task", "attribute"} < set(routes)
    assert {"follow", "by_direction", "alternating"} < set(routes)
    assert schema["properties"]["share"]["maximum"] == 1 and not schema["additionalProperties"]

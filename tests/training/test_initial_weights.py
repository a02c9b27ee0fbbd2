"""Initial weights from another model."""

from typing import Any

import pytest
import torch
from tiny import tiny_config
from torch import nn

from skillweave.components.embeddings.position import PositionEmbedding
from skillweave.config import ConfigError
from skillweave.config.layering import merge
from skillweave.model.config import ModelConfig
from skillweave.training.initial_weights import copy_weights, require_alike


def build(**heads):
    return nn.ModuleDict(
        {"encoder": nn.Linear(3, 3), **{name: nn.Linear(3, size) for name, size in heads.items()}}
    )


def test_takes_what_agrees_and_reports_the_rest():
    own, other = build(classes=5, fresh=2), build(classes=4, words=7)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    report = copy_weights(own, other.state_dict(), "runs/pretrained")
    assert torch.equal(own["encoder"].weight, other["encoder"].weight)
    for name in ("classes.weight", "fresh.weight"):
        assert torch.equal(own.state_dict()[name], before[name])
    assert "copied 2 of 6 tensors" in report
    assert "new, absent there: fresh.bias, fresh.weight" in report
    assert "classes.weight is (4, 3), expected (5, 3)" in report
    assert "not used: words.bias, words.weight" in report


def test_nothing_in_common_is_an_error():
    with pytest.raises(ConfigError, match="no weight there has the name and shape of one"):
        copy_weights(nn.Linear(2, 2), nn.Linear(3, 3).state_dict(), "elsewhere")


class Words(nn.Module):
    """A model with parameters at given paths."""

    def __init__(self, **tables):
        super().__init__()
        for path, shape in tables.items():
            *parents, name = path.split("__")
            module = self
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, nn.Module())
                module = getattr(module, parent)
            module.register_parameter(name, nn.Parameter(torch.randn(shape)))


TEXT, CODE, SHARED = (
    "embeddings__text__content__word__weight",
    "embeddings__code__content__word__weight",
    "shared__word__weight",
)


@pytest.mark.parametrize(
    ("own", "given"), [([TEXT, CODE], [SHARED]), ([TEXT], [SHARED]), ([SHARED], [TEXT])]
)
def test_words_are_taken_whether_streams_share_them_or_not(own, given):
    model, other = (
        Words(**dict.fromkeys([*names, "rest__weight"], (5, 3))) for names in (own, given)
    )
    report = copy_weights(model, other.state_dict(), "base")
    source = other.state_dict()[given[0].replace("__", ".")]
    assert all(torch.equal(model.state_dict()[name.replace("__", ".")], source) for name in own)
    assert f"copied {len(own) + 1} of {len(own) + 1} tensors" in report and "not used" not in report


def test_a_classifier_takes_the_pooler_of_a_model_without_one():
    model = Words(targets__classification__pooler__weight=(3, 3))
    other = Words(targets__pooled__pooler__weight=(3, 3))
    copy_weights(model, other.state_dict(), "base")
    assert torch.equal(
        model.targets.classification.pooler.weight, other.targets.pooled.pooler.weight
    )


def test_as_many_positions_are_taken_as_the_model_has():
    model, other = (nn.ModuleDict({"text": PositionEmbedding(size, 3)}) for size in (4, 9))
    report = copy_weights(model, other.state_dict(), "base")
    assert torch.equal(model["text"].table.weight, other["text"].table.weight[:4])
    assert "only the first positions: text.table.weight" in report


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoder": {"heads": 6}}, "encoder: heads 3 there, 6 here"),
        ({"encoder": {"norm_position": "pre"}}, "encoder: norm_position post there, pre here"),
        ({"encoder": {"activation": "relu"}}, "encoder: activation gelu there, relu here"),
        ({"encoder": {"scale_attention": False}}, "encoder: scale_attention True there"),
        ({"encoder": {"position": {"kind": "rope"}}}, "encoder: position.kind none there, rope"),
        ({"streams": {"text": {"scale_embedding": True}}}, "embeddings.text: scale_embedding"),
        ({"targets": {"mlm": {"activation": "relu"}}}, "targets.mlm: activation gelu there"),
    ],
)
def test_weights_of_another_architecture_are_refused(changes: dict[str, Any], told: str) -> None:
    """Their shapes are the same, and they would mean something else."""
    base = tiny_config()
    other = ModelConfig.parse(merge(base.model_dump(mode="json"), changes))
    with pytest.raises(ConfigError, match=f"mean something else in this model: {told}"):
        require_alike(other, base, "runs/base")


def test_what_training_may_change_is_no_other_architecture() -> None:
    base = tiny_config()
    changes = {"encoder": {"layers": 1, "dropout": 0.3, "drop_path": 0.1, "prompts": 3}}
    require_alike(ModelConfig.parse(merge(base.model_dump(mode="json"), changes)), base, "")
    written_out = {"encoder": {"key_value_heads": 3, "head_size": 4}}  # the defaults
    require_alike(ModelConfig.parse(merge(base.model_dump(mode="json"), written_out)), base, "")

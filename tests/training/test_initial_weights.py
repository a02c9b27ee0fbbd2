"""Initial weights from another model."""

import pytest
import torch
from torch import nn

from skillweave.components.embeddings.position import PositionEmbedding
from skillweave.config import ConfigError
from skillweave.training.initial_weights import copy_weights


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

"""An upcycled model is the dense one, until its experts part."""

import pytest
import torch
from tiny import relative_error, tiny_config, tiny_model

from skillweave.config import ConfigError
from skillweave.evaluation.agreement import made_batch
from skillweave.surgery.upcycle import copied, copy_table, upcycle

TOKEN = {"route": "token", "experts": 4, "active": 2}
SPARSE = {
    "skill": {"qkv": {"route": "skill"}},
    "skills that modalities share": {
        "qkv": {"route": "skill", "skills": {"image": "vision", "video": "vision"}}
    },
    "skill feed-forwards": {"feed_forward": {"route": "skill"}},
    "token": {"feed_forward": TOKEN},
    "skill and token": {"qkv": {"route": "skill"}, "feed_forward": TOKEN},
}
QKV = "encoder.blocks.1.attention.qkv"
FEED_FORWARD = "encoder.blocks.1.feed_forward"


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(1)
    return tiny_model(tiny_config("dense"), torch.float32)


@pytest.mark.parametrize("sparse", SPARSE.values(), ids=SPARSE)
def test_the_output_is_that_of_the_dense_model(dense, sparse) -> None:
    result = upcycle(dense, sparse)
    assert result.count_parameters() > dense.count_parameters() and not result.training
    for task in dense.config.tasks:
        batch = made_batch(dense, task)
        with torch.no_grad():
            expected, found = dense(batch).logits, result(batch).logits
        assert found.keys() == expected.keys()
        for target, logits in expected.items():
            assert relative_error(found[target], logits) <= 1e-5


def test_every_expert_is_a_copy_and_only_gates_are_new(dense) -> None:
    result = upcycle(dense, SPARSE["skill and token"])
    own, given = result.state_dict(), dense.state_dict()
    for skill in ("text", "image", "sound", "video", "code"):
        assert torch.equal(
            own[f"{QKV}.experts.{skill}.weight"], given[f"{QKV}.experts.shared.weight"]
        )
    for expert in "0123":
        assert torch.equal(
            own[f"{FEED_FORWARD}.experts.{expert}.outer.bias"],
            given[f"{FEED_FORWARD}.experts.shared.outer.bias"],
        )
    new = [name for name, source in copied(result, dense).items() if not source]
    assert new == [f"encoder.blocks.{block}.feed_forward.route.gate.weight" for block in (0, 1)]
    rows = {row.group: row for row in copy_table(result, dense)}
    assert (
        rows["encoder.blocks.*.attention.qkv.experts.code"].source
        == "encoder.blocks.*.attention.qkv.experts.shared"
    )
    assert (
        rows["embeddings.text"].source == "unchanged"
        and rows["encoder.blocks.*.feed_forward.route.gate"].source == ""
    )
    assert sum(row.numbers for row in rows.values()) == result.count_parameters()


def test_equal_experts_part_in_training(dense) -> None:
    """A fresh gate weighs them differently, so that no noise is needed."""
    result = upcycle(dense, {"feed_forward": TOKEN})
    batch = made_batch(dense, "classify")
    result(batch).logits["classification"].square().sum().backward()
    gradients = [
        result.get_parameter(f"{FEED_FORWARD}.experts.{expert}.inner.weight").grad
        for expert in "0123"
    ]
    used = [g for g in gradients if g is not None]
    assert len(used) > 1
    assert all(relative_error(a, b) > 1e-3 for i, a in enumerate(used) for b in used[:i])


def test_noise_is_relative_seeded_and_on_copies_alone(dense) -> None:
    result, again = (
        upcycle(dense, {"feed_forward": TOKEN}, noise=0.1, seed=3).state_dict() for _ in range(2)
    )
    assert all(torch.equal(result[name], again[name]) for name in result)
    given = dense.state_dict()
    weight = given[f"{FEED_FORWARD}.experts.shared.inner.weight"]
    changes = torch.stack(
        [result[f"{FEED_FORWARD}.experts.{e}.inner.weight"] - weight for e in "0123"]
    )
    assert changes.std().item() == pytest.approx(0.1 * weight.std().item(), rel=0.1)
    assert changes.flatten(1).unique(dim=0).shape[0] == 4
    assert torch.equal(
        result[f"{QKV}.experts.shared.weight"], given[f"{QKV}.experts.shared.weight"]
    )


def test_sites_that_are_sparse_stay_as_they_are(dense) -> None:
    skillnet = upcycle(dense, SPARSE["skill"])
    both = upcycle(skillnet, SPARSE["skill and token"])
    assert torch.equal(
        both.get_parameter(f"{QKV}.experts.code.bias"),
        skillnet.get_parameter(f"{QKV}.experts.code.bias"),
    )
    with pytest.raises(
        ConfigError,
        match=r"attention.qkv.weight is sparse already: 5 experts, .*experts.shared.weight",
    ):
        upcycle(skillnet, SPARSE["token"])
    tokens = upcycle(dense, SPARSE["token"])
    with pytest.raises(ConfigError, match="keep the route"):
        upcycle(tokens, {"feed_forward": {**TOKEN, "experts": 6}})


def test_faults_are_told(dense) -> None:
    with pytest.raises(ConfigError, match="has these experts already"):
        upcycle(dense, {})
    with pytest.raises(ConfigError, match=r"qvk: unknown key; did you mean 'qkv'\?"):
        upcycle(dense, {"qvk": {"route": "skill"}})
    with pytest.raises(ConfigError, match="noise -1"):
        upcycle(dense, SPARSE["skill"], noise=-1)

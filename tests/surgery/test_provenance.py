"""Weights grouped by their name without experts, and the table of where they come from."""

import torch
from tiny import tiny_config

from skillweave.batch import Modality
from skillweave.model.model import Model
from skillweave.surgery.provenance import (
    Provenance,
    ProvenanceRow,
    group_experts,
    skill_owners,
    tabulate,
)


def test_groups_are_names_without_experts() -> None:
    linear, plain = (
        "encoder.blocks.3.attention.output.experts.1.weight",
        "encoder.blocks.3.attention.output.weight",
    )
    nested = "encoder.blocks.0.feed_forward.experts.shared.inner.experts.7.bias"
    decoder = "decoder.blocks.1.feed_forward.experts.2.outer.weight"
    own = "stream_encoders.image.blocks.1.attention.qkv.experts.0.weight"
    other = "targets.experts.classifier.weight"  # a target that someone called `experts`
    assert group_experts([linear, plain, nested, decoder, own, other]) == {
        plain: [linear, plain],
        "encoder.blocks.0.feed_forward.inner.bias": [nested],
        "decoder.blocks.1.feed_forward.outer.weight": [decoder],
        "stream_encoders.image.blocks.1.attention.qkv.weight": [own],
        other: [other],
    }


def test_skills_belong_to_the_modalities_of_the_table() -> None:
    table = {"image": "vision", "video": "vision"}
    with torch.device("meta"):
        model = Model(
            tiny_config(
                encoder={
                    "layers": 1,
                    "heads": 3,
                    "feed_forward": 20,
                    "sparse": {"qkv": {"route": "skill", "skills": table}},
                }
            )
        )
    qkv = "encoder.blocks.0.attention.qkv.experts"
    owners = skill_owners(model)
    assert owners[f"{qkv}.vision.weight"] == [Modality.IMAGE, Modality.VIDEO]
    assert owners[f"{qkv}.text.bias"] == [Modality.TEXT]
    # weight and bias of text, vision, sound and code; nothing else belongs to a skill
    assert len(owners) == 2 * 4


def test_blocks_are_one_row_and_each_provenance_is_one() -> None:
    weights = {
        f"encoder.blocks.{i}.norm.{part}": torch.zeros(3)
        for i in range(2)
        for part in ("weight", "bias")
    }
    weights["targets.ctc.classifier.weight"] = torch.zeros(4, 3)
    provenance = dict.fromkeys(weights, Provenance("a")) | {
        "encoder.blocks.1.norm.bias": Provenance(note="why"),
        "targets.ctc.classifier.weight": Provenance("a", "some", 0.25),
    }
    assert tabulate(provenance, weights) == [
        ProvenanceRow("encoder.blocks.*.norm", "a", "", 3, 9, 9),
        ProvenanceRow("encoder.blocks.*.norm", "", "why", 1, 3, 0),
        ProvenanceRow("targets.ctc", "a", "some", 1, 12, 3),
    ]

"""Presets that Hugging Face has no model of: made small, each learns a batch by heart."""

from pathlib import Path
from typing import Any

import pytest
import torch

import skillweave
from skillweave.batch import Batch, Modality
from skillweave.config.layering import load_yaml, merge
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

FOLDER = Path(skillweave.__file__).parent / "presets"
WORDS = 19
TEXT = {"vocabulary": WORDS, "max_length": 16}
CLASSES = {"classification": {"classes": ["a", "b", "c"]}}
SMALL: dict[str, dict[str, Any]] = {
    "elmo": {"encoder": {"input_size": 12, "cell_size": 24}},
    "infersent": {"encoder": {"input_size": 12}, "targets": CLASSES},
    "cove": {
        "encoder": {"input_size": 12},
        "decoder": {"input_size": 10},
        "target_embedding": TEXT,
    },
    "gated-cnn-9": {"encoder": {"input_size": 12, "layers": 3}},
    "sbert-base": {"encoder": {"layers": 2, "heads": 2, "feed_forward": 32}, "targets": CLASSES},
    "codebert-base": {"encoder": {"layers": 2, "heads": 2, "feed_forward": 32}, "targets": CLASSES},
}
SMALL["codebert-base"]["tasks"] = {
    "pooled": None,
    "classification": {"spans": [{"modality": "text"}], "targets": {"classification": 1.0}},
}


def small(name: str) -> Model:
    changes = {"width": 16, "streams": {"text": TEXT}, **SMALL[name]}
    return Model(ModelConfig.parse(merge(load_yaml(FOLDER / f"{name}.yaml"), changes), name))


def batch_of(model: Model) -> Batch:
    """Four samples of up to seven words, with the labels of all targets."""
    (name,) = model.config.tasks
    layout = model.config.tasks[name].layout(name)
    lengths = torch.tensor([[7, 5], [3, 6], [5, 2], [2, 4]])[:, : len(layout.spans)]
    padded = tuple(lengths.max(0).values.tolist())
    inputs = tuple(torch.randint(WORDS, (4, length)) for length in padded)
    assert {span.modality for span in layout.spans} == {Modality.TEXT}
    following = torch.full((4, padded[-1]), -100)
    previous = following.clone()
    for row, (length, ids) in enumerate(zip(lengths[:, -1].tolist(), inputs[-1], strict=True)):
        following[row, : length - 1] = ids[1:length]
        previous[row, 1:length] = ids[: length - 1]
    labels = {"class": torch.tensor([0, 1, 2, 0]), "label_ids": following, "previous_ids": previous}
    return Batch(layout.with_lengths(padded), inputs, lengths, labels)


@pytest.mark.parametrize("name", SMALL)
def test_a_preset_learns(name: str) -> None:
    torch.manual_seed(0)
    model = small(name).train()
    batch = batch_of(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = model(batch).loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        assert {n for n, p in model.named_parameters() if p.grad is not None} == set(
            model.active_parameters(batch.layout.task)
        )
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", SMALL)
def test_saved_and_read(name: str, tmp_path: Path) -> None:
    model = small(name).eval()
    model.save_pretrained(tmp_path)
    torch.manual_seed(1)
    batch = batch_of(model)
    again = skillweave.load(tmp_path)
    for target, logits in model(batch).logits.items():
        assert torch.equal(again(batch).logits[target], logits)

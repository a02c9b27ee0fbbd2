"""The loss over a vocabulary in chunks, against the loss of all logits at once."""

import pytest
import torch
import torch.nn.functional as F
from tiny import STREAMS, TASKS, random_batch, randomise, task, tiny_config

from skillweave.batch import IGNORE
from skillweave.components.targets import vocabulary
from skillweave.components.targets.vocabulary import chunked_cross_entropy
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

LANGUAGE = {
    "kind": "lm", "bias": True, "scaled": True, "softcap": 3.0, "label_smoothing": 0.2
}  # fmt: skip
MODELS = {
    "tied": {"targets": {"mlm": LANGUAGE}, "tasks": {"captioning": TASKS["captioning"]}},
    "own": {
        "targets": {"mlm": {"kind": "lm", "tied": False}},
        "tasks": {"captioning": TASKS["captioning"]},
    },
    "masked": {"targets": {"mlm": {}}, "tasks": {"masked_text": TASKS["masked_text"]}},
    "both directions": {
        "targets": {"bilm": {"bias": True}},
        "tasks": {"masked_text": task("bilm", "text")},
        "streams": {"text": STREAMS["text"]},
        "width": 12,
        "encoder": {"name": "lstm", "layers": 1, "direction": "separate", "dropout": 0},
    },
}
LENGTHS = {"captioning": [[5, 20], [5, 9], [5, 12]], "masked_text": [[9], [3], [14]]}


def gradients(loss, tensors):
    return torch.autograd.grad(loss, tensors)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("rows", [1, 3, 50])
def test_loss_and_gradients_of_any_chunks_are_those_of_the_whole(smoothing, rows):
    random = torch.Generator().manual_seed(0)
    shapes = [(11, 4), (7, 4), (7,)]
    x, weight, bias = (
        torch.randn(shape, generator=random, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    )
    label = torch.randint(7, (11,), generator=random)
    label[[0, 4, 5]] = IGNORE
    expected = F.cross_entropy(F.linear(x, weight, bias), label, label_smoothing=smoothing)
    found = chunked_cross_entropy(F.linear, x, label, [weight, bias], rows, smoothing)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    parts = [gradients(3 * loss, [x, weight, bias]) for loss in (found, expected)]
    for ours, theirs in zip(*parts, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_without_a_label_the_loss_is_zero_and_so_are_the_gradients():
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    loss = chunked_cross_entropy(F.linear, x, torch.full((4,), IGNORE), [weight], 2)
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients(loss, [x, weight]))


def test_a_frozen_output_layer_gets_no_gradient():
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    label = torch.randint(5, (4,))
    loss = chunked_cross_entropy(F.linear, x, label, [weight], 3)
    (found,) = gradients(loss, [x])
    (expected,) = gradients(F.cross_entropy(F.linear(x, weight), label), [x])
    torch.testing.assert_close(found, expected)
    assert weight.grad is None


def test_autocast_applies_to_each_chunk_as_to_the_whole():
    x, weight = torch.randn(8, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    label = torch.randint(6, (8,))
    with torch.autocast("cpu", torch.bfloat16):
        found = chunked_cross_entropy(F.linear, x, label, [weight], 3)
        logits = F.linear(x, weight)
        expected = F.cross_entropy(logits.float(), label)
    assert logits.dtype == torch.bfloat16 and found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        gradients(found, [x, weight]), gradients(expected, [x, weight]), strict=True
    ):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_asked_for_the_loss_alone_computes_it_in_chunks(kind, monkeypatch):
    whole_config = "encoder" in MODELS[kind]
    config = ModelConfig.parse(MODELS[kind]) if whole_config else tiny_config(**MODELS[kind])
    model = Model(config).double().train()
    randomise(model)
    (name,) = MODELS[kind]["tasks"]
    batch = random_batch(name, LENGTHS[name], config)
    if kind == "both directions":
        batch.labels["previous_ids"] = batch.labels["label_ids"].flip(1)
    (target,) = model.targets.values()
    rows, whole = [], target.project
    monkeypatch.setattr(vocabulary, "CHUNK_BYTES", 2 * 4 * 30 + 1)  # two rows
    monkeypatch.setattr(
        target, "project", lambda x, *weights: rows.append(len(x)) or whole(x, *weights)
    )
    found = model(batch, loss_only=True)
    assert set(rows) <= {1, 2} and len(rows) > 2 and not found.logits
    expected = model(batch)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-9, atol=0)
    parameters = dict(model.named_parameters())
    for out in (found, expected):
        model.zero_grad()
        out.loss.backward()
        gradient = {n: p.grad for n, p in parameters.items() if p.grad is not None}
        if out is found:
            first = gradient
    assert first.keys() == gradient.keys()
    for parameter, value in gradient.items():
        torch.testing.assert_close(first[parameter], value, rtol=1e-9, atol=1e-12)


def test_few_logits_are_computed_at_once():
    config = tiny_config(**MODELS["tied"])
    model = Model(config).double().train()
    batch = random_batch("captioning", LENGTHS["captioning"], config)
    assert torch.equal(model(batch, loss_only=True).loss, model(batch).loss)

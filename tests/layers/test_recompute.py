"""Activation checkpointing: the same losses and gradients, and less memory."""

import numpy as np
import pytest
import torch
from tiny import labelled, make_batch, random_examples, tiny_config, tiny_model
from torch.autograd.graph import saved_tensors_hooks

from skillweave.layers.recompute import Recompute

NOISY = {"route": "token", "experts": 3, "active": 1, "noise": 0.5}
MODELS = {
    "dense": {"route": "dense"},
    "skills": {"route": "skill"},
    "experts by token, with noise": {"feed_forward": NOISY},
}
SETTINGS = [Recompute(), Recompute(every=2), Recompute(selective=True)]


def train_once(name, recompute):
    """Loss, gradients, and the bytes that are kept for the backward pass. There are dropout, noise
    and drop path."""
    torch.manual_seed(0)
    encoder = {"layers": 3, "dropout": 0.2, "drop_path": 0.2, "attention_dropout": 0.1}
    model = tiny_model(tiny_config(**MODELS[name], encoder=encoder)).train()
    model.recompute_activations(recompute)
    config, task = model.config, "denoising"
    lengths = [(config.streams.video.max_length, 20, 9), (config.streams.video.max_length, 15, 12)]
    torch.manual_seed(1)
    examples = random_examples(task, lengths, config)
    examples = labelled(task, examples, np.random.default_rng(0))
    batch = make_batch(task, examples, config)
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(2)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(batch, generator=generator).loss
    saved = sum(kept.values()) - sum(p.nbytes for p in model.parameters())
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss, gradients, saved, generator.get_state()


@pytest.mark.parametrize("recompute", SETTINGS, ids=["all", "every second", "selective"])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_the_same(name, recompute):
    loss, gradients, _, end = train_once(name, None)
    again, found, _, same_end = train_once(name, recompute)
    assert torch.equal(loss, again)
    assert torch.equal(end, same_end)  # the next layers and steps draw the same noise
    assert found.keys() == gradients.keys()
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-12, atol=1e-14)


def test_more_layers_that_compute_again_keep_less():
    none, second, all_ = (train_once("dense", r)[2] for r in (None, SETTINGS[1], SETTINGS[0]))
    assert all_ < second < none


def test_in_evaluation_nothing_is_computed_again(monkeypatch):
    monkeypatch.setattr(Recompute, "run", lambda *_: pytest.fail("computed again"))
    model = tiny_model()
    model.recompute_activations(Recompute())
    examples = random_examples("classify", [(3,), (5,)], model.config)
    assert model(make_batch("classify", examples, model.config)).logits

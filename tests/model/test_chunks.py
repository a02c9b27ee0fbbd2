"""Contrastive batches whose samples are encoded a few at a time, against the whole batch."""

import pytest
import torch
from tiny import TASKS, random_batch, randomise, task, tiny_config

from skillweave.layers.recompute import Recompute
from skillweave.model.model import Model

LENGTHS = {"to_code": [[5, 4], [3, 9], [12, 2], [1, 1], [7, 3]], "to_image": [[5, 5], [3, 5]] * 3}
TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}


def build(route="skill", dropout=0.0, **changes):
    torch.manual_seed(0)
    encoder = {"dropout": dropout, "attention_dropout": dropout, **changes.pop("encoder", {})}
    model = Model(tiny_config(route, encoder=encoder, **changes)).double().train()
    randomise(model)
    return model


def run(model, batch, **settings):
    """The loss and the gradients, with seeded dropout and noise."""
    torch.manual_seed(3)
    model.zero_grad()
    loss = model(batch, torch.Generator().manual_seed(4), loss_only=True, **settings).loss
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, torch.rand(3)


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], **TOLERANCE)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, **TOLERANCE)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_gradients_are_those_of_the_whole_batch(name, loss, chunk_size):
    model = build("attribute", targets={"contrastive": {"loss": loss}}, tasks={name: TASKS[name]})
    batch = random_batch(name, LENGTHS[name], model.config)
    assert_same(run(model, batch, chunk_size=chunk_size), run(model, batch))


def test_experts_chosen_by_token_and_recomputed_layers_are_the_same_too():
    model = build("token", tasks={"to_code": TASKS["to_code"]}, targets={"contrastive": {}})
    batch = random_batch("to_code", LENGTHS["to_code"], model.config)
    whole = run(model, batch)
    assert_same(run(model, batch, chunk_size=2), whole)
    model.recompute_activations(Recompute())
    assert_same(run(model, batch, chunk_size=2), whole)


def test_dropout_and_noise_are_replayed(monkeypatch):
    """The reference keeps the activations of all chunks, so nothing is drawn again."""
    model = build(
        "token", dropout=0.5, tasks={"to_code": TASKS["to_code"]}, targets={"contrastive": {}}
    )
    batch = random_batch("to_code", LENGTHS["to_code"], model.config)
    found = run(model, batch, chunk_size=2)
    monkeypatch.setattr(Recompute, "run", lambda self, work, generator: work(generator))
    kept = run(model, batch, chunk_size=2)
    assert_same(found, kept)
    other = run(
        build("token", tasks={"to_code": TASKS["to_code"]}, targets={"contrastive": {}}),
        batch,
        chunk_size=2,
    )
    assert abs(float(other[0] - kept[0])) > 1e-3  # dropout does something


def test_one_chunk_is_encoded_at_a_time(monkeypatch):
    model = build(tasks={"to_code": TASKS["to_code"]}, targets={"contrastive": {}})
    batch = random_batch("to_code", LENGTHS["to_code"], model.config)
    sizes, encode = [], model._encode
    monkeypatch.setattr(
        model, "_encode", lambda part, *rest: sizes.append(len(part)) or encode(part, *rest)
    )
    run(model, batch, chunk_size=2)
    assert sizes == [2, 2, 1, 1, 2, 2]  # forward, then again in the backward pass


def test_targets_that_look_at_more_than_vectors_are_refused():
    model = build(tasks={"t": task("classification", "text")})
    batch = random_batch("classify", [[3], [4], [5]], build().config)
    batch = type(batch)(
        **{**batch.__dict__, "layout": model.config.tasks["t"].layout("t").with_lengths((8,))}
    )
    with pytest.raises(TypeError, match="does not compare vectors alone"):
        model(batch, chunk_size=2)

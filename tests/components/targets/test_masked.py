"""Masked targets: logits where there are labels alone, however padding and spans lie."""

import pytest
import torch
import torch.nn.functional as F
from tiny import hidden_states, make_batch, random_batch, random_examples, tiny_model

from skillweave.batch import IGNORE

LENGTHS = {"masked_text": [[9], [2], [5]], "masked_code": [[6, 9], [3, 2], [8, 4]], "masked_sound": [[9], [2], [5]]}


@pytest.mark.parametrize("task", ["masked_text", "masked_code"])
def test_words_by_a_plain_loop(task: str) -> None:
    model = tiny_model()
    batch = random_batch(task, LENGTHS[task], model.config)
    target, words = model.targets["mlm"], model.shared["word"].weight
    hidden, labels = hidden_states(model, batch)[0], batch.labels["words"]
    assert labels.shape == hidden.shape[:2]
    losses = [
        F.cross_entropy(words @ target.norm(F.gelu(target.transform(hidden[i, j]))) + target.bias, labels[i, j])
        for i, j in (labels != IGNORE).nonzero().tolist()
    ]
    out = model(batch)
    torch.testing.assert_close(out.loss, torch.stack(losses).mean())
    assert out.logits["mlm"].shape == (len(losses), len(words))


def test_units_by_a_plain_loop() -> None:
    model = tiny_model()
    batch = random_batch("masked_sound", LENGTHS["masked_sound"], model.config)
    hidden, labels = hidden_states(model, batch)[0], batch.labels["units"]
    places = (labels != IGNORE).nonzero().tolist()
    losses = [F.cross_entropy(model.targets["masked_unit"].classifier(hidden[i, j]), labels[i, j]) for i, j in places]
    torch.testing.assert_close(model(batch).loss, torch.stack(losses).mean())


def test_nothing_masked_costs_nothing_and_has_a_gradient() -> None:
    model = tiny_model()
    batch = random_batch("masked_text", LENGTHS["masked_text"], model.config)
    batch.labels["words"].fill_(IGNORE)
    out = model(batch)
    out.loss.backward()
    assert out.loss.item() == 0
    assert out.logits["mlm"].shape[0] == 0


def test_without_labels_every_token_has_logits() -> None:
    model = tiny_model()
    batch = make_batch("masked_text", random_examples("masked_text", [[9], [2]], model.config), model.config)
    out = model(batch)
    assert out.loss is None
    assert out.logits["mlm"].shape == (11, model.config.streams.text.vocabulary)

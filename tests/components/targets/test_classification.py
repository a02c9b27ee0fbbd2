"""Classification reads the first token, through BERT's pooler or without it."""

import pytest
import torch
import torch.nn.functional as F
from tiny import STREAMS, TARGETS, hidden_states, random_batch, task, tiny_config, tiny_model

from skillweave.batch import Batch, Layout, Modality, Span
from skillweave.config import ConfigError


@pytest.mark.parametrize("hidden", [True, False])
def test_logits_and_loss_by_hand(hidden: bool) -> None:
    targets = {**TARGETS, "classification": {"classes": ["a", "b", "c"], "hidden": hidden}}
    model = tiny_model(tiny_config(targets=targets))
    batch = random_batch("classify", [[9], [4], [6]], model.config)
    first = hidden_states(model, batch)[0][:, 0]
    target = model.targets["classification"]
    assert (target.pooler is not None) == hidden
    logits = target.classifier(torch.tanh(target.pooler(first)) if hidden else first)
    out = model(batch)
    torch.testing.assert_close(out.logits["classification"], logits)
    torch.testing.assert_close(out.loss, F.cross_entropy(logits, batch.labels["class"]))


def test_a_teacher_is_followed_by_the_second_token() -> None:
    """Half of the loss each, and the mean of both answers (DeiT, equation 3)."""
    classification = {"classes": ["a", "b", "c"], "hidden": False, "distilled": True}
    tasks = {"look": task("classification", "image")}
    with pytest.raises(ConfigError, match="set `distilled: true` in the stream 'image'"):
        tiny_config(targets={"classification": classification}, tasks=tasks)
    streams = {**STREAMS, "image": {**STREAMS["image"], "distilled": True}}
    model = tiny_model(
        tiny_config(targets={"classification": classification}, tasks=tasks, streams=streams)
    )
    layout = Layout("look", (Span(Modality.IMAGE, length=6),))
    labels = {"class": torch.tensor([0, 2]), "teacher_class": torch.tensor([1, 2])}
    batch = Batch(
        layout, (torch.randn(2, 3, 8, 8, dtype=torch.float64),), torch.tensor([[6], [6]]), labels
    )
    hidden, target, out = (
        hidden_states(model, batch)[0],
        model.targets["classification"],
        model(batch),
    )
    own, taught = target.classifier(hidden[:, 0]), target.distilled(hidden[:, 1])
    torch.testing.assert_close(out.logits["classification"], (own + taught) / 2)
    expected = (
        F.cross_entropy(own, labels["class"]) + F.cross_entropy(taught, labels["teacher_class"])
    ) / 2
    torch.testing.assert_close(out.loss, expected)

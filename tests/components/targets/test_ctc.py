"""The CTC target against PyTorch's own loss in float64, and against the sum over all paths of tiny
sizes."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tiny import make_batch, random_batch, random_examples, tiny_config, tiny_model
from torch import Tensor

from skillweave.batch import IGNORE, Example

LENGTHS = [[11], [7], [16]]


def path_sum(log_probabilities_LC: Tensor, wanted: list[int]) -> float:
    """−log of the probability of all paths that collapse to `wanted`, one by one."""
    length, classes = log_probabilities_LC.shape
    total = 0.0
    for path in itertools.product(range(classes), repeat=length):
        if [c for c, _ in itertools.groupby(path) if c] == wanted:
            total += math.exp(sum(log_probabilities_LC[i, c].item() for i, c in enumerate(path)))
    return -math.log(total) if total else math.inf


def test_loss_and_gradient_are_those_of_torch_on_each_recording_alone() -> None:
    model = tiny_model()
    batch = random_batch("transcribe", LENGTHS, model.config)
    out = model(batch)
    out.loss.backward()
    found = model.targets["ctc"].classifier.weight.grad.clone()
    model.zero_grad()
    losses = []
    logits = model(batch).logits["ctc"]
    for i, (length,) in enumerate(LENGTHS):
        wanted = batch.labels["characters"][i]
        wanted = wanted[wanted != IGNORE]
        scores = logits[i, :length].log_softmax(-1).unsqueeze(1)
        size = torch.tensor([len(wanted)])
        losses.append(
            F.ctc_loss(scores, wanted[None], torch.tensor([length]), size, reduction="sum")
            / len(wanted)
        )
    expected = torch.stack(losses).mean()
    expected.backward()
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(
        found, model.targets["ctc"].classifier.weight.grad, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("wanted", [[1], [2, 1], [1, 1], [3, 3], [1, 2, 3]])
def test_loss_is_that_of_all_paths(wanted: list[int]) -> None:
    model = tiny_model()
    (example,) = random_examples("transcribe", [[4]], model.config)
    example = Example(example.spans, {"characters": torch.tensor(wanted)})
    out = model(make_batch("transcribe", [example], model.config))
    expected = path_sum(out.logits["ctc"][0, :4].log_softmax(-1), wanted)
    assert out.loss.item() == pytest.approx(expected / len(wanted), rel=1e-12)


def test_impossible_transcripts_cost_nothing() -> None:
    model = tiny_model()
    (example,) = random_examples("transcribe", [[2]], model.config)
    example = Example(example.spans, {"characters": torch.tensor([1, 1])})
    out = model(make_batch("transcribe", [example], model.config))
    out.loss.backward()
    assert out.loss.item() == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_logits_without_labels() -> None:
    model = tiny_model(tiny_config())
    batch = make_batch(
        "transcribe", random_examples("transcribe", LENGTHS, model.config), model.config
    )
    out = model(batch)
    assert out.loss is None
    assert out.logits["ctc"].shape == (3, 16, 4)

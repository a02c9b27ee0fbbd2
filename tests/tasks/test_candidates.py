"""Candidates: whole in evaluation, sampled in training, so that the sample's sum is right on
average."""

from itertools import combinations

import numpy as np
import pytest
import torch

from skillweave.batch import IGNORE, Batch, Example, Features, Layout, Modality, Role, Span
from skillweave.config.streams import Streams, TextStream
from skillweave.data.collate import collate
from skillweave.tasks.candidates import AT_ONCE, Candidates

STREAMS = Streams(text=TextStream(max_length=8))
LAYOUT = Layout("t", (Span(Modality.TEXT), Span(Modality.TEXT, Role.TARGET, encoder_pass=1)))


def candidates(count: int, label: str = "class") -> Candidates:
    return Candidates(
        LAYOUT.only(1), label, count, lambda i: Features(torch.tensor([2, i]), 2), STREAMS
    )


def batch_of(*classes: int) -> Batch:
    examples = [Example((Features(torch.tensor([1, 1]), 2),), {"class": c}) for c in classes]
    return collate(LAYOUT.only(0), examples, STREAMS, 1)


class Draw:
    """A generator whose choice is given."""

    def __init__(self, chosen: tuple[int, ...]) -> None:
        self.chosen = chosen

    def choice(self, others: np.ndarray, count: int, replace: bool) -> np.ndarray:
        assert (
            set(self.chosen) <= set(others.tolist()) and count == len(self.chosen) and not replace
        )
        return np.array(self.chosen)


def test_all_of_them_in_order() -> None:
    found = list(candidates(AT_ONCE + 3).batches())
    assert [len(b) for b in found] == [AT_ONCE, 3]
    assert torch.cat([b.inputs[0][:, 1] for b in found]).tolist() == list(range(AT_ONCE + 3))
    assert all(b.lengths.unique().tolist() == [2] for b in found)


@pytest.mark.parametrize("negatives", [0, 1, 3, 9, 50])
def test_labels_become_rows_of_the_sample(negatives: int) -> None:
    batch = candidates(10).sample(batch_of(7, 2, 7), negatives, np.random.default_rng(0))
    ids = batch.candidates.inputs[0][:, 1]
    assert len(ids) == len(set(ids.tolist())) == 2 + min(negatives, 8)
    assert ids[batch.labels["class"]].tolist() == [7, 2, 7]
    assert torch.equal(batch.candidates.labels["numbers"], ids)
    assert batch.candidates.labels["stands_for"].sum() == pytest.approx(10 if negatives else 2)


def test_the_sum_over_a_sample_is_right_on_average() -> None:
    """Over all 15 draws of 2 of the 6 others, exactly."""
    scores, sums = torch.rand(8, dtype=torch.float64), []
    for chosen in combinations([0, 1, 3, 4, 5, 6], 2):
        batch = candidates(8).sample(batch_of(7, 2), 2, Draw(chosen))
        ids = batch.candidates.inputs[0][:, 1]
        sums.append((batch.candidates.labels["stands_for"].double() * scores[ids]).sum())
    assert torch.stack(sums).mean().item() == pytest.approx(scores.sum().item(), rel=1e-12)


def test_positions_without_a_label_stay_so() -> None:
    examples = [
        Example(
            (Features(torch.tensor([1, 5, 6]), 3),),
            token_labels={"label_ids": torch.tensor([IGNORE, 6, 3])},
        )
    ]
    batch = candidates(9, "label_ids").sample(
        collate(LAYOUT.only(0), examples, STREAMS, 1), 2, np.random.default_rng(0)
    )
    labels = batch.labels["label_ids"][0]
    assert labels[0] == IGNORE
    assert batch.candidates.inputs[0][:, 1][labels[1:]].tolist() == [6, 3]


def test_a_batch_takes_its_candidates_along() -> None:
    batch = candidates(4).sample(batch_of(1), 1, np.random.default_rng(0))
    assert batch.to("meta").candidates.inputs[0].device.type == "meta"
    assert sum(batch.condition_tokens.values()) == 2 + 2 * 2
    assert [part.layout.spans[0].role for part in batch.parts] == [Role.INPUT, Role.TARGET]

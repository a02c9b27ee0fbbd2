"""The mixture: a pure function of (seed, index, rank) that draws tasks by weight and replaces broken
samples."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from skillweave.batch import Batch, Example, Features, Layout, Modality, SkippedSample, Span
from skillweave.config import ConfigError
from skillweave.config.streams import Streams, TextStream
from skillweave.config.task import TaskConfig
from skillweave.config.training import TrainingConfig
from skillweave.data.collate import collate
from skillweave.data.mixture import MAX_REPLACEMENTS, Mixture, count_steps
from skillweave.data.processors import BadInput

STREAMS = Streams(text=TextStream(max_length=512))


class Numbers:
    """A task whose sample i is the text [i, random number]. Rows in `broken` cannot be read."""

    def __init__(
        self,
        name: str,
        count: int,
        broken: frozenset[int] = frozenset(),
        lengths: list[int] | None = None,
    ) -> None:
        self.layout = Layout(name, (Span(Modality.TEXT),))
        self.count, self.broken, self.lengths = count, broken, lengths

    def __len__(self) -> int:
        return self.count

    def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
        if index in self.broken:
            raise BadInput("0 bytes")
        length = self.lengths[index] if self.lengths else 2
        data = torch.full((length,), index)
        data[-1] = int(rng.integers(10**6)) if length > 1 else index
        return Example((Features(data, length),), {"class": index}, self.key(index))

    def key(self, index: int) -> str:
        return f"row {index}"

    def collate(
        self,
        examples: list[Example],
        skipped: list[SkippedSample],
        rng: np.random.Generator | None = None,
    ) -> Batch:
        labels = {"drawn": int(rng.integers(10**6))}
        return collate(
            self.layout,
            [replace(e, labels={**e.labels, **labels}) for e in examples],
            STREAMS,
            8,
            skipped,
        )

    def sizes(self, rows: np.ndarray) -> np.ndarray | None:
        return np.array(self.lengths)[rows] if self.lengths else None

    def group_ids(self) -> np.ndarray | None:
        return None

    def blocks(self) -> None:
        return None


def mix(
    datasets: dict[str, Numbers],
    tasks: dict[str, dict[str, Any]],
    rank: int = 0,
    world_size: int = 1,
    **training: Any,
) -> Mixture:
    configs = {
        name: TaskConfig.parse({"data": {"path": "none"}, **spec}) for name, spec in tasks.items()
    }
    return Mixture(
        datasets, TrainingConfig.parse({"steps": 20, **training}), configs, rank, world_size
    )


def two_tasks(rank: int = 0, world_size: int = 1, **training: Any) -> Mixture:
    datasets = {"a": Numbers("a", 23), "b": Numbers("b", 17, frozenset({3, 4}))}
    tasks = {"a": {"batch_size": 4}, "b": {"batch_size": 3, "weight": 2}}
    return mix(datasets, tasks, rank, world_size, **training)


def content(batch: Batch) -> tuple[Any, ...]:
    return (
        batch.layout,
        batch.inputs[0].tolist(),
        batch.labels["class"].tolist(),
        batch.labels["drawn"].tolist(),
        batch.keys,
        batch.skipped,
    )


def rows(batch: Batch) -> list[int]:
    return batch.labels["class"].tolist()


def test_a_batch_depends_on_its_number_alone() -> None:
    forward = [content(batch) for batch in (two_tasks()[i] for i in range(20))]
    mixture = two_tasks()
    backward = [content(mixture[i]) for i in reversed(range(20))][::-1]
    assert forward == backward == [content(two_tasks()[i]) for i in range(20)]
    assert forward != [content(two_tasks(seed=1)[i]) for i in range(20)]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_resuming_change_nothing(workers: int) -> None:
    mixture = two_tasks()
    late = DataLoader(mixture, batch_size=None, sampler=range(7, 20), num_workers=workers)
    assert [content(b) for b in late] == [content(mixture[i]) for i in range(7, 20)]


def test_more_steps_begin_alike() -> None:
    assert [two_tasks().task_of(i, 0) for i in range(20)] == [
        two_tasks(steps=30).task_of(i, 0) for i in range(20)
    ]


def test_accumulated_batches_share_their_steps_task() -> None:
    mixture = two_tasks(gradient_accumulation_steps=3)
    assert len(mixture) == 60
    assert all(mixture[i].layout.task == mixture.task_of(i // 3, 0) for i in range(60))


def test_tasks_are_drawn_by_weight() -> None:
    """SkillNet's weights; five standard deviations of a binomial."""
    weights = {"text": 2, "sound": 4, "image": 2, "video": 1, "code": 4}
    datasets = {name: Numbers(name, 8) for name in weights}
    tasks = {name: {"weight": weight} for name, weight in weights.items()}
    mixture = mix(datasets, tasks, steps=20_000)
    drawn = [mixture.task_of(i, 0) for i in range(mixture.steps)]
    for name, weight in weights.items():
        share = weight / 13
        assert abs(drawn.count(name) - 20_000 * share) < 5 * math.sqrt(20_000 * share * (1 - share))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_out_what_one_process_takes(world: int) -> None:
    def single(size: int) -> Mixture:
        return mix({"a": Numbers("a", 40)}, {"a": {"batch_size": size}})

    alone = single(6)
    parts = [
        mix({"a": Numbers("a", 40)}, {"a": {"batch_size": 6 // world}}, r, world)
        for r in range(world)
    ]
    for i in range(20):
        shares = [rows(part[i]) for part in parts]
        assert sorted(r for share in shares for r in share) == sorted(rows(alone[i]))
        assert len({part.task_of(i, part.rank) for part in parts}) == 1


def test_an_epoch_covers_all_rows_once_and_the_next_in_another_order() -> None:
    mixture = mix({"a": Numbers("a", 12)}, {"a": {"batch_size": 3}})
    epochs = [[r for i in range(4 * e, 4 * e + 4) for r in rows(mixture[i])] for e in range(5)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_epochs_go_on_where_the_last_one_ends_within_a_batch() -> None:
    mixture = mix({"a": Numbers("a", 11)}, {"a": {"batch_size": 4}}, steps=33)
    taken = [row for i in range(33) for row in rows(mixture[i])]
    for epoch in range(12):
        assert sorted(taken[11 * epoch : 11 * epoch + 11]) == list(range(11))


def test_augmentation_differs_between_epochs() -> None:
    mixture = mix({"a": Numbers("a", 4)}, {"a": {"batch_size": 4}})
    first, second = (
        {row[0]: row[1] for row in mixture[i].inputs[0][:, :2].tolist()} for i in (0, 1)
    )
    assert set(first) == set(second) and all(first[i] != second[i] for i in first)


def test_broken_samples_give_way_to_others_and_are_listed() -> None:
    mixture = two_tasks(steps=60)
    batches = [mixture[i] for i in range(60) if mixture.task_of(i, 0) == "b"]
    skips = [s for b in batches for s in b.skipped]
    assert {(s.task, s.key, s.reason) for s in skips} == {
        ("b", f"row {i}", "0 bytes") for i in (3, 4)
    }
    assert all(len(b) == 3 and not {3, 4}.intersection(rows(b)) for b in batches)


def test_nothing_but_broken_samples() -> None:
    mixture = mix({"a": Numbers("a", 5, frozenset(range(5)))}, {"a": {"batch_size": 2}})
    with pytest.raises(
        ConfigError,
        match=f"task 'a': {MAX_REPLACEMENTS} broken samples in a row, the last row .: 0 bytes",
    ):
        mixture[0]


def test_small_data_makes_small_batches_and_too_little_is_an_error() -> None:
    mixture = mix({"a": Numbers("a", 5)}, {"a": {"batch_size": 32}})
    assert len(mixture[0]) == 5
    with pytest.raises(ConfigError, match="task 'a': 1 training samples for 2 processes"):
        mix({"a": Numbers("a", 1)}, {"a": {}}, 0, 2)


def test_sorting_by_length_reduces_padding() -> None:
    lengths = np.random.default_rng(0).integers(2, 500, 400).tolist()
    datasets = {"a": Numbers("a", 400, lengths=lengths)}

    def padding(bucket_batches: int) -> float:
        mixture = mix(datasets, {"a": {"batch_size": 8}}, bucket_batches=bucket_batches)
        return float(np.mean([mixture[i].padding for i in range(20)]))

    assert padding(16) < 0.15 < 0.3 < padding(1)


def test_a_curriculum_changes_the_shares_of_tasks() -> None:
    datasets = {name: Numbers(name, 8) for name in "ab"}
    tasks = {"a": {"curriculum": {0: 1, 0.5: 0.0001}}, "b": {"weight": 1}}
    mixture = mix(datasets, tasks, steps=400)
    drawn = [mixture.task_of(i, 0) for i in range(400)]
    assert drawn[:40].count("a") > 10 and drawn[200:].count("a") <= 1


def test_lengths_of_runs() -> None:
    def steps(**training: Any) -> int:
        return count_steps(TrainingConfig.parse(training), 7.5, 10.2)

    assert (steps(steps=3), steps(epochs=1), steps(epochs=2.5), steps(samples=16)) == (3, 11, 26, 3)


def test_an_epoch_is_that_of_the_task_that_takes_longest() -> None:
    """a: 100 rows, 10 a batch, drawn once in four: 40 steps; b: 60 rows, 5 a batch, three in four:
    16 steps."""
    datasets = {"a": Numbers("a", 100), "b": Numbers("b", 60)}
    tasks = {"a": {"batch_size": 10}, "b": {"batch_size": 5, "weight": 3}}
    assert mix(datasets, tasks, steps=None, epochs=1).steps == 40
    assert mix(datasets, tasks, steps=None, epochs=1, gradient_accumulation_steps=2).steps == 20
    assert mix(datasets, tasks, 0, 2, steps=None, epochs=1).steps == 20
    # 0.25 · 10 + 0.75 · 5 a step
    assert mix(datasets, tasks, steps=None, samples=250).steps == 40

"""Which task each step trains: draws by weight, weights that change, and any part on its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.data.task_schedule import BLOCK, TaskSchedule, curve, mean_weight


def draws(schedule: TaskSchedule, count: int) -> list[int]:
    return [schedule.task(step) for step in range(count)]


def test_draws_are_numpys_choice_with_the_weights() -> None:
    """The reference draws all steps at once."""
    schedule = TaskSchedule([{0: 2.0}, {0: 1.0}, {0: 4.0}], 3000, [5, 7])
    expected = np.random.default_rng([5, 7]).choice(3, 3000, p=np.array([2, 1, 4]) / 7)
    assert draws(schedule, 3000) == expected.tolist()


@given(steps=st.lists(st.integers(0, 5000), min_size=1, max_size=6), seed=st.integers(0, 3))
@settings(max_examples=20)
def test_any_step_and_its_count_on_their_own(steps: list[int], seed: int) -> None:
    weights = [{0: 1.0, 1: 3.0}, {0: 2.0}]
    whole = draws(TaskSchedule(weights, 5000, [seed]), 5001)
    schedule = TaskSchedule(weights, 5000, [seed])
    for step in steps:
        assert schedule.task(step) == whole[step]
        assert schedule.occurrence(step, 1) == whole[:step].count(1)


@given(first=st.integers(0, 2 * BLOCK), early=st.integers(0, 3 * BLOCK))
@settings(max_examples=20)
def test_a_change_of_weights_leaves_earlier_steps(first: int, early: int) -> None:
    weights = [{0: 1.0}, {0: 1.0}]
    before = draws(TaskSchedule(weights, 3 * BLOCK, [0]), 3 * BLOCK)
    schedule = TaskSchedule(weights, 3 * BLOCK, [0])
    schedule.occurrence(early, 0)
    schedule.change(first, (1.0, 0.0))
    after = draws(schedule, 3 * BLOCK)
    assert after[:first] == before[:first] and set(after[first:]) <= {0}
    assert schedule.occurrence(3 * BLOCK, 1) == before[:first].count(1)
    stored = TaskSchedule(weights, 3 * BLOCK, [0], list(schedule.changes))
    assert draws(stored, 3 * BLOCK) == after


def test_a_curriculum() -> None:
    """From 1 : 1 to 1 : 3 in the second half: the last steps train the second task three times in
    four."""
    points = {0.5: 1.0, 1: 3.0}
    schedule = TaskSchedule([{0: 1.0}, points], 1000, [0])
    found = schedule.probabilities(np.array([0, 500, 750, 1000]))[:, 1]
    assert found.tolist() == pytest.approx([1 / 2, 1 / 2, 2 / 3, 3 / 4])
    assert curve(points, np.array([0.25, 0.75])).tolist() == [1, 2]
    # half of the run 1, then rising to 3
    assert mean_weight(points) == pytest.approx((1 + 2) / 2)

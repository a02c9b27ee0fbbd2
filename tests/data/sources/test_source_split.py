import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.config import ConfigError
from skillweave.config.recipe import DataConfig
from skillweave.data.sources.base import MemoryTable
from skillweave.data.sources.split import SPLITS, draw, position, select

GROUPS = st.lists(st.text(max_size=4), min_size=1, max_size=40)


def table(groups, **more):
    return MemoryTable("here", [{"key": f"k{i}", "group": g, **more} for i, g in enumerate(groups)])


def splits_of(groups, **data):
    """group → the splits its rows stand in, by key."""
    rows = table(groups)
    found = {}
    for split in SPLITS:
        try:
            chosen = select(rows, DataConfig(path="x", **data), split, "key")
        except ConfigError:
            continue
        for i in chosen:
            found.setdefault(groups[i], set()).add(split)
    return found


@given(GROUPS, GROUPS, st.randoms())
@settings(deadline=None, max_examples=60)
def test_a_group_has_one_split_whatever_the_order_and_the_other_rows(groups, others, random):
    alone = splits_of(groups)
    assert all(len(splits) == 1 for splits in alone.values())
    mixed = groups + others
    random.shuffle(mixed)
    together = splits_of(mixed)
    assert {group: together[group] for group in alone} == alone


@given(GROUPS, st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_the_splits_are_a_partition_and_limit_takes_a_stable_part(groups, limit):
    rows, seen = table(groups), []
    for split in SPLITS:
        try:
            whole = select(rows, DataConfig(path="x"), split, "key")
        except ConfigError:
            continue
        some = select(rows, DataConfig(path="x", limit=limit), split, "key")
        more = select(rows, DataConfig(path="x", limit=limit + 1), split, "key")
        assert set(some) <= set(more) <= set(whole) and len(some) == min(limit, len(whole))
        assert some == sorted(some)
        seen += whole
    assert sorted(seen) == list(range(len(groups)))


def test_position_is_a_fixed_function_spread_over_the_unit_interval():
    places = [position(f"row {i}", "split") for i in range(2000)]
    assert all(0 <= place < 1 for place in places)
    assert abs(sum(places) / 2000 - 0.5) < 0.03  # 4.6 standard errors of a uniform mean
    assert position("row 1", "split") == places[1] != position("row 1", "limit")


def test_shares_are_as_asked_and_a_zero_share_gets_nothing():
    drawn = [draw(str(i), (0.6, 0.0, 0.4)) for i in range(2000)]
    assert abs(drawn.count("train") / 2000 - 0.6) < 0.05 and drawn.count("validation") == 0
    assert {draw(str(i), (1.0, 0.0, 0.0)) for i in range(100)} == {"train"}


def test_the_split_column_is_believed_and_its_usual_names_are_known():
    rows = MemoryTable("here", [{"key": str(i), "split": s} for i, s in enumerate(["dev", "train", "TEST", None, "val"])])
    data = DataConfig(path="x")
    assert [select(rows, data, split, "key") for split in SPLITS] == [[1], [0, 4], [2]]


def test_a_group_that_the_recipe_names_overrules_the_split_column():
    rows = MemoryTable("here", [{"key": str(i), "who": f"Ann {i % 9}", "split": "train"} for i in range(90)])
    for split in SPLITS:
        assert select(rows, DataConfig(path="x", group="who", fractions=(0.5, 0.2, 0.3)), split, "key") == [
            i for i in range(90) if draw(f"Ann {i % 9}", (0.5, 0.2, 0.3)) == split
        ]


def test_a_group_that_a_path_per_split_parts_is_an_error_if_the_recipe_names_it():
    rows = MemoryTable("here", [{"key": "a", "who": "Ann", "split": "train"}, {"key": "b", "who": "Ann", "split": "test"}])
    with pytest.raises(ConfigError, match="who 'Ann' stands in train and test"):
        select(rows, DataConfig(path={"train": "x", "test": "y"}, group="who"), "train", "key")


def test_errors_name_the_source_and_the_remedy():
    rows = table(["one"] * 5)
    empty = next(split for split in SPLITS if split != draw("one", (0.8, 0.1, 0.1)))
    with pytest.raises(ConfigError, match=f"here: no rows for the split '{empty}': 5 rows in all; fractions"):
        select(rows, DataConfig(path="x"), empty, "key")
    with pytest.raises(ConfigError, match="group: no column 'grup'; did you mean 'group'"):
        select(rows, DataConfig(path="x", group="grup"), "train", "key")
    other = MemoryTable("here", [{"key": "a", "split": "week 1"}])
    with pytest.raises(ConfigError, match="holds 'week 1'; expected train, validation or test"):
        select(other, DataConfig(path="x"), "train", "key")


def test_rows_without_a_group_are_their_own():
    rows = MemoryTable("here", [{"key": f"k{i}", "group": None} for i in range(300)])
    sizes = [len(select(rows, DataConfig(path="x", fractions=(0.5, 0.25, 0.25)), split, "key")) for split in SPLITS]
    assert sum(sizes) == 300 and min(sizes) > 40

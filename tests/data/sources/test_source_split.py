import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source
from skillweave.data.sources.base import MemoryTable
from skillweave.data.sources.split import SPLITS, hash_fraction, split_of, split_rows

NAMES = st.text(min_size=1, max_size=4).filter(str.strip)
GROUPS = st.lists(NAMES, min_size=1, max_size=40)


def table(groups, **more):
    return MemoryTable("here", [{"key": f"k{i}", "group": g, **more} for i, g in enumerate(groups)])


def splits_of(groups, **data):
    """group → the splits its rows stand in, by key."""
    rows = table(groups)
    found = {}
    for split in SPLITS:
        try:
            chosen = split_rows(rows, DataConfig(path="x", **data), split, "key")
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
            whole = split_rows(rows, DataConfig(path="x"), split, "key")
        except ConfigError:
            continue
        some = split_rows(rows, DataConfig(path="x", limit=limit), split, "key")
        more = split_rows(rows, DataConfig(path="x", limit=limit + 1), split, "key")
        assert set(some) <= set(more) <= set(whole) and len(some) == min(limit, len(whole))
        assert some == sorted(some)
        seen += whole
    assert sorted(seen) == list(range(len(groups)))


def test_the_hash_is_a_fixed_function_spread_over_the_unit_interval():
    values = [hash_fraction(f"row {i}", "split") for i in range(2000)]
    assert all(0 <= value < 1 for value in values)
    assert abs(sum(values) / 2000 - 0.5) < 0.03  # 4.6 standard errors of a uniform mean
    assert hash_fraction("row 1", "split") == values[1] != hash_fraction("row 1", "limit")


def test_shares_are_as_asked_and_a_zero_share_gets_nothing():
    drawn = [split_of(str(i), (0.6, 0.0, 0.4)) for i in range(2000)]
    assert abs(drawn.count("train") / 2000 - 0.6) < 0.05 and drawn.count("validation") == 0
    assert {split_of(str(i), (1.0, 0.0, 0.0)) for i in range(100)} == {"train"}


def test_the_split_column_is_believed_and_its_usual_names_are_known():
    rows = MemoryTable(
        "here",
        [{"key": str(i), "split": s} for i, s in enumerate(["dev", "train", "TEST", None, "val"])],
    )
    data = DataConfig(path="x")
    assert [split_rows(rows, data, split, "key") for split in SPLITS] == [[1], [0, 4], [2]]


def test_a_group_that_the_recipe_names_overrules_the_split_column():
    rows = MemoryTable(
        "here", [{"key": str(i), "who": f"Ann {i % 9}", "split": "train"} for i in range(90)]
    )
    for split in SPLITS:
        assert split_rows(
            rows, DataConfig(path="x", group="who", fractions=(0.5, 0.2, 0.3)), split, "key"
        ) == [i for i in range(90) if split_of(f"Ann {i % 9}", (0.5, 0.2, 0.3)) == split]


def test_a_group_that_a_path_per_split_parts_is_an_error_if_the_recipe_names_it():
    rows = MemoryTable(
        "here",
        [{"key": "a", "who": "Ann", "split": "train"}, {"key": "b", "who": "Ann", "split": "test"}],
    )
    with pytest.raises(ConfigError, match="who 'Ann' stands in train and test"):
        split_rows(rows, DataConfig(path={"train": "x", "test": "y"}, group="who"), "train", "key")


def test_errors_name_the_source_and_the_remedy():
    rows = table(["one"] * 5)
    empty = next(split for split in SPLITS if split != split_of("one", (0.8, 0.1, 0.1)))
    with pytest.raises(
        ConfigError, match=f"here: no rows for the split '{empty}': 5 rows in all; fractions"
    ):
        split_rows(rows, DataConfig(path="x"), empty, "key")
    with pytest.raises(ConfigError, match="group: no column 'grup'; did you mean 'group'"):
        split_rows(rows, DataConfig(path="x", group="grup"), "train", "key")
    other = MemoryTable("here", [{"key": "a", "split": "week 1"}])
    with pytest.raises(ConfigError, match="holds 'week 1'; expected train, validation or test"):
        split_rows(other, DataConfig(path="x"), "train", "key")


def test_rows_without_a_group_are_their_own():
    rows = MemoryTable("here", [{"key": f"k{i}", "group": None} for i in range(300)])
    sizes = [
        len(split_rows(rows, DataConfig(path="x", fractions=(0.5, 0.25, 0.25)), split, "key"))
        for split in SPLITS
    ]
    assert sum(sizes) == 300 and min(sizes) > 40


def labelled(count):
    return MemoryTable(
        "here", [{"key": f"k{i}", "kind": "common" if i % 10 else "rare"} for i in range(count)]
    )


def train_rows(rows, fraction, split="train", **columns):
    data = DataConfig(path="x", fraction=fraction, fractions=(1, 0, 0), columns=columns)
    return split_rows(rows, data, split, "key")


@given(st.integers(1, 300), st.floats(0.001, 1), st.floats(0.001, 1), st.randoms())
@settings(deadline=None, max_examples=60)
def test_a_smaller_fraction_lies_in_a_larger_one_whatever_the_order(count, one, other, random):
    rows, (less, more) = labelled(count), sorted((one, other))
    small, large = (train_rows(rows, share, label="kind") for share in (less, more))
    assert set(small) <= set(large) and small == sorted(small)
    assert len(small) == max(1, round(less * count))
    random.shuffle(rows.rows)
    again = {rows.rows[i]["key"] for i in train_rows(rows, less, label="kind")}
    assert again == {f"k{i}" for i in small}


def test_each_label_keeps_its_share_and_one_percent_lies_in_ten():
    rows = labelled(2000)  # 200 rare, 1800 common
    tenth, hundredth = (train_rows(rows, share, label="kind") for share in (0.1, 0.01))
    assert [sum(i % 10 == 0 for i in chosen) for chosen in (tenth, hundredth)] == [20, 2]
    assert set(hundredth) <= set(tenth) and (len(hundredth), len(tenth)) == (20, 200)
    unlabelled = train_rows(rows, 0.1)
    assert len(unlabelled) == 200 and unlabelled != tenth


def test_a_fraction_is_of_training_samples_alone():
    rows, data = labelled(500), {"path": "x", "fractions": (0.5, 0.25, 0.25)}
    for split in ("validation", "test"):
        assert split_rows(rows, DataConfig(**data, fraction=0.01), split, "key") == split_rows(
            rows, DataConfig(**data), split, "key"
        )
    limited = DataConfig(**data, fraction=0.1, limit=100)
    assert len(split_rows(rows, limited, "train", "key")) == 10, "a share of what the limit leaves"


@pytest.mark.parametrize("missing", [None, float("nan"), "", "  "], ids=repr)
def test_rows_without_a_group_are_groups_of_their_own(missing):
    rows = MemoryTable("here", [{"key": f"k{i}", "group": missing} for i in range(60)])
    sizes = [len(split_rows(rows, DataConfig(path="x"), split, "key")) for split in SPLITS]
    alone = MemoryTable("here", [{"key": f"k{i}"} for i in range(60)])
    assert sizes == [len(split_rows(alone, DataConfig(path="x"), s, "key")) for s in SPLITS]
    assert all(sizes) and sum(sizes) == 60


def write(folder, name, splits, first=0):
    rows = [
        {"text": f"t{first + i}", "group": f"g{(first + i) // 2}", **({"split": s} if s else {})}
        for i, s in enumerate(splits)
    ]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


@pytest.mark.parametrize("own", [False, True])
def test_a_share_of_the_training_data_validates_where_only_that_is_lacking(tmp_path, own):
    if own:
        path = write(tmp_path, "a.jsonl", ["train"] * 200 + ["test"] * 20)
    else:
        train, test = (
            write(tmp_path, "a.jsonl", [""] * 200),
            write(tmp_path, "b.jsonl", [""] * 20, 200),
        )
        path = {"train": train, "test": test}
    with pytest.raises(ConfigError, match=r"`validation_share: 0\.1` takes a tenth"):
        open_source(DataConfig(path=path), "validation")
    data = DataConfig(path=path, validation_share=0.3)
    found = {split: open_source(data, split, ["text", "group"]) for split in SPLITS}
    texts = {split: set(source.column("text")) for split, source in found.items()}
    assert texts["test"] == {f"t{i}" for i in range(200, 220)}
    assert texts["train"] | texts["validation"] == {f"t{i}" for i in range(200)}
    groups = {split: set(source.column("group")) for split, source in found.items()}
    assert not groups["train"] & groups["validation"]
    assert 40 <= len(texts["validation"]) <= 80  # 60 are expected
    small = data.model_copy(update={"fraction": 0.5, "limit": 100})
    assert set(open_source(small, "train").column("text")) < texts["train"]
    assert len(open_source(small, "train")) == 50
    assert set(open_source(small, "validation").column("text")) == texts["validation"]


def test_a_share_beside_validation_data_is_an_error(tmp_path):
    file = write(tmp_path, "a.jsonl", ["train", "validation", "test"] * 4)
    plain = write(tmp_path, "b.jsonl", [""] * 50)
    for path in (file, plain):
        with pytest.raises(ConfigError, match="the source has validation samples"):
            open_source(DataConfig(path=path, validation_share=0.1), "train")
    with pytest.raises(ConfigError, match="the path has validation samples"):
        DataConfig.parse({"path": {"train": "a", "validation": "b"}, "validation_share": 0.1})

"""Which rows of a source belong to a split.

A `split` column decides, unless the recipe names a group to split by. In all other cases the
group of each row is hashed to a number in [0, 1), which falls into one of the shares. A group is
therefore always in the same split, whatever the order of the rows and the other rows are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

from skillweave.config.base import ConfigError, nearest
from skillweave.config.data import DataConfig, Split
from skillweave.data.sources.base import Table
from skillweave.data.values import class_name, is_missing

SPLITS: tuple[Split, ...] = get_args(Split)
VALIDATION_REMEDY = "; `validation_share: 0.1` takes a tenth of the training data for it"
"""What helps where only validation data are lacking."""
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What columns, folders and datasets call the splits, in lower case."""


def hash_fraction(text: str, purpose: str) -> float:
    """A number in [0, 1) that depends on `text` and `purpose` alone (BLAKE2b, 53 bits)."""
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=8, person=purpose.encode()
    ).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_of(group: str, fractions: Sequence[float]) -> Split:
    """The split of a group. `fractions`: the shares of train, validation and test."""
    position, bound = hash_fraction(group, "split"), 0.0
    shares = [(split, share) for split, share in zip(SPLITS, fractions, strict=True) if share > 0]
    for split, share in shares[:-1]:
        bound += share
        if position < bound:
            return split
    return shares[-1][0]  # the last share takes what rounding left


def split_rows(table: Table, data: DataConfig, split: Split, key: str | None) -> list[int]:
    """The indices of the rows of a split, in the order of the source.

    `key`: the column of keys, if any. With a path per split, all rows of the path belong to its
    split, unless a `split` column names several splits. Raises ConfigError when there is no row.
    """
    if data.fold and split != "test":
        return _fold_rows(table, data, split, key, data.fold)
    if data.validation_share and split != "test":
        return _shared_rows(table, data, split, key)
    regrouped = data.group is not None and isinstance(data.path, str)
    own: list[Split | None] = []
    if "split" in table.columns and not regrouped:
        own = [SPLIT_NAMES.get(str(value).strip().lower()) for value in table.column("split")]
    if any(own) and (isinstance(data.path, str) or len(set(own) - {None}) > 1):
        _check_groups(table, data, own)
        _list_unknown(table, own)
        rows = [i for i, name in enumerate(own) if name == split]
    elif isinstance(data.path, dict):
        rows = list(range(len(table)))
    elif own:
        found = ", ".join(sorted({repr(value) for value in table.column("split")})[:5])
        raise ConfigError(
            f"{table.path}: the split column holds {found}; expected train, validation or test"
        )
    else:
        groups = enumerate(_groups(table, data, key))
        rows = [i for i, group in groups if split_of(group, data.fractions) == split]
    if not rows:
        raise ConfigError(_explain_empty(table, data, split, own))
    return _limited(table, rows, data, split, key)


def _fold_rows(
    table: Table, data: DataConfig, split: Split, key: str | None, fold: tuple[int, int]
) -> list[int]:
    """The rows of one fold of the training and validation rows (validation), or of the other folds
    (train).

    Whole groups are assigned to the folds in the order of their hashes, so that folds have about
    the same number of groups.
    """
    whole = data.model_copy(update={"fold": None, "fraction": 1.0})
    rows = sorted(
        _rows_if_any(table, whole, "train", key) + _rows_if_any(table, whole, "validation", key)
    )
    groups = _groups(table, data, key)
    order = sorted(
        {groups[row] for row in rows}, key=lambda group: (hash_fraction(group, "fold"), group)
    )
    number, count = fold
    if len(order) < count:
        raise ConfigError(
            f"{table.path}: {len(order)} groups of samples cannot be parted into {count} folds"
        )
    fold_of = {group: i % count for i, group in enumerate(order)}
    chosen = [row for row in rows if (fold_of[groups[row]] == number) == (split == "validation")]
    return _training_share(table, chosen, data, key) if split == "train" else chosen


def _shared_rows(table: Table, data: DataConfig, split: Split, key: str | None) -> list[int]:
    """The rows of the source's training split, without those of the groups that
    `validation_share` takes from it, or these."""
    whole = data.model_copy(update={"validation_share": 0.0, "limit": None, "fraction": 1.0})
    if isinstance(data.path, str) and _rows_if_any(table, whole, "validation", key):
        raise ConfigError(
            f"{table.path}: validation_share: the source has validation samples, of its own or by"
            " `fractions`; leave it out"
        )
    groups = _groups(table, data, key)
    rows = [
        row
        for row in split_rows(table, whole, "train", key)
        if (hash_fraction(groups[row], "validation") < data.validation_share)
        == (split == "validation")
    ]
    if not rows:
        raise ConfigError(
            f"{table.path}: no rows for the split {split!r}: validation_share is"
            f" {data.validation_share}; change it, or use a finer group or more rows"
        )
    return _limited(table, rows, data, split, key)


def _limited(
    table: Table, rows: list[int], data: DataConfig, split: Split, key: str | None
) -> list[int]:
    """At most `limit` rows; of the training split the `fraction` of these."""
    if data.limit is not None:
        rows = _limit_rows(table, rows, data.limit, key)
    return _training_share(table, rows, data, key) if split == "train" else rows


def _rows_if_any(table: Table, data: DataConfig, split: Split, key: str | None) -> list[int]:
    try:
        return split_rows(table, data, split, key)
    except ConfigError:
        return []


def _identities(table: Table, key: str | None) -> list[str]:
    """The key of each row, or its stable id."""
    keys: list[Any] = table.column(key) if key else [None] * len(table)
    return [table.stable_id(i) if is_missing(value) else str(value) for i, value in enumerate(keys)]


def _groups(table: Table, data: DataConfig, key: str | None) -> list[str]:
    """The group of each row. A row without a group is a group of its own."""
    name = "group" if "group" in table.columns else None
    if data.group:
        name = table.find_column(data.group, "group")
    values = table.column(name) if name else [None] * len(table)
    alone = _identities(table, key) if any(map(is_missing, values)) else []
    return [alone[i] if is_missing(value) else str(value) for i, value in enumerate(values)]


def _limit_rows(table: Table, rows: list[int], limit: int, key: str | None) -> list[int]:
    """`limit` of the rows, drawn by hash, so that the first rows of a sorted source are not
    preferred."""
    if len(rows) <= limit:
        return rows
    identities = _identities(table, key)
    return sorted(sorted(rows, key=lambda i: hash_fraction(identities[i], "limit"))[:limit])


def _training_share(table: Table, rows: list[int], data: DataConfig, key: str | None) -> list[int]:
    """`data.fraction` of the rows: the first rows of an order by hash in which the rows of each
    label are spread evenly."""
    if data.fraction == 1:
        return rows
    identities, labels = _identities(table, key), _labels(table, data)
    order = sorted(rows, key=lambda i: hash_fraction(identities[i], "fraction"))
    counts, seen = Counter(labels[i] for i in rows), Counter[str]()
    quantiles: dict[int, float] = {}
    for i in order:
        quantiles[i] = (seen[labels[i]] + 0.5) / counts[labels[i]]
        seen[labels[i]] += 1
    count = max(1, round(data.fraction * len(rows)))
    return sorted(sorted(order, key=quantiles.__getitem__)[:count])


def _labels(table: Table, data: DataConfig) -> list[str]:
    """The label of each row, the same for all rows of a source without labels."""
    name = data.columns.get("label", "label")
    column = table.aliases.get(name, name) if isinstance(name, str) else ""
    if column not in table.columns:
        return [""] * len(table)
    return [class_name(label) or "" for label in table.column(column)]


def _check_groups(table: Table, data: DataConfig, own: Sequence[Split | None]) -> None:
    """Raise ConfigError when the source's own splits divide a group that the recipe names."""
    if data.group is None:
        return
    seen: dict[Any, Split] = {}
    groups = table.column(table.find_column(data.group, "group"))
    for group, name in zip(groups, own, strict=True):
        if name and not is_missing(group) and seen.setdefault(group, name) != name:
            raise ConfigError(
                f"{table.path}: {data.group} {group!r} stands in {seen[group]} and {name} of the"
                " source's own splits; name another group, or none to accept them"
            )


def _list_unknown(table: Table, own: Sequence[Split | None]) -> None:
    """List the rows whose split has an unknown name, or none."""
    for index, (known, name) in enumerate(zip(own, table.column("split"), strict=True)):
        if known is None:
            told = f"unknown split {name!r}{nearest(str(name), SPLIT_NAMES)}"
            table.skipped.append((table.locate(index), "no split" if is_missing(name) else told))


def describe_skipped(table: Table) -> str:
    """How many rows were skipped, and the reason of the first. Empty when none was."""
    if not table.skipped:
        return ""
    key, reason = table.skipped[0]
    return f", {len(table.skipped)} skipped (first: {key}: {reason})"


def _explain_empty(
    table: Table, data: DataConfig, split: Split, own: Sequence[Split | None]
) -> str:
    line = (
        f"{table.path}: no rows for the split {split!r}: {len(table)} rows in all"
        f"{describe_skipped(table)}"
    )
    if any(own):
        names = ", ".join(sorted({name for name in own if name}))
        remedy = VALIDATION_REMEDY if split == "validation" and "train" in own else ""
        return f"{line}; its own splits are {names}; give a path for each split{remedy}"
    return (
        f"{line}; fractions are {data.fractions}: raise the share, or use a finer group or more"
        " rows"
    )

"""Which rows of a source belong to a split.

A source that says so itself (a `split` column) is believed, unless the recipe names a group to
split it by. Then, and otherwise, each row's group is hashed to a number in [0, 1) that falls into
one of the shares, so that a group always stands in the same split, whatever the order of the rows
and whatever else is in the source.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

from skillweave.config.base import ConfigError
from skillweave.config.data import DataConfig, Split
from skillweave.data.sources.base import Table

SPLITS: tuple[Split, ...] = get_args(Split)
NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What columns, folders and datasets call the splits (in lower case)."""


def position(text: str, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but `text` and `purpose` (BLAKE2b, 53 bits)."""
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=8, person=purpose.encode()
    ).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def draw(group: str, fractions: Sequence[float]) -> Split:
    """The split of a group when `fractions` are the shares of train, validation and test."""
    where, bound = position(group, "split"), 0.0
    shares = [(split, share) for split, share in zip(SPLITS, fractions, strict=True) if share > 0]
    for split, share in shares[:-1]:
        bound += share
        if where < bound:
            return split
    return shares[-1][0]  # the last share takes what rounding left


def select(table: Table, data: DataConfig, split: Split, key: str | None) -> list[int]:
    """The indices of a split's rows, in the order of the source.

    `key`: the column of keys, if any. With a path per split, all rows of that path belong to it,
    unless its own `split` column tells several splits apart. Raises ConfigError when no row is
    left.
    """
    if data.fold and split != "test":
        return _in_fold(table, data, split, key, data.fold)
    regrouped = data.group is not None and isinstance(data.path, str)
    believed = "split" in table.columns and not regrouped
    own = [NAMES.get(str(value).lower()) for value in table.column("split")] if believed else []
    if own and any(own) and (isinstance(data.path, str) or len(set(own) - {None}) > 1):
        _check_groups(table, data, own)
        rows = [i for i, name in enumerate(own) if name == split]
    elif isinstance(data.path, dict):
        rows = list(range(len(table)))
    elif own:
        found = ", ".join(sorted({repr(value) for value in table.column("split")})[:5])
        raise ConfigError(
            f"{table.where}: the split column holds {found}; expected train, validation or test"
        )
    else:
        rows = [
            i
            for i, group in enumerate(_groups(table, data, key))
            if draw(group, data.fractions) == split
        ]
    if not rows:
        raise ConfigError(_why_empty(table, data, split, own))
    rows = rows if data.limit is None else _limited(table, rows, data.limit, key)
    return _share(table, rows, data, key) if split == "train" and data.fraction < 1 else rows


def _in_fold(
    table: Table, data: DataConfig, split: Split, key: str | None, fold: tuple[int, int]
) -> list[int]:
    """The rows of one of k parts of all training and validation rows (validation), or of the others
    (train).

    Whole groups are dealt out in the order of their hashes, so that parts have about as many of
    them.
    """
    whole = data.model_copy(update={"fold": None, "fraction": 1.0})
    rows = sorted(
        row for name in ("train", "validation") for row in _rows_of(table, whole, name, key)
    )
    groups = _groups(table, data, key)
    order = sorted(
        {groups[row] for row in rows}, key=lambda group: (position(group, "fold"), group)
    )
    if len(order) < fold[1]:
        raise ConfigError(
            f"{table.where}: {len(order)} groups of samples cannot be parted into {fold[1]} folds"
        )
    part = {group: i % fold[1] for i, group in enumerate(order)}
    chosen = [row for row in rows if (part[groups[row]] == fold[0]) == (split == "validation")]
    return _share(table, chosen, data, key) if split == "train" and data.fraction < 1 else chosen


def _rows_of(table: Table, data: DataConfig, split: Split, key: str | None) -> list[int]:
    """The rows of a split, none where it has none."""
    try:
        return select(table, data, split, key)
    except ConfigError:
        return []


def _identities(table: Table, key: str | None) -> list[str]:
    keys: list[Any] = table.column(key) if key else [None] * len(table)
    return [table.identity(i) if value is None else str(value) for i, value in enumerate(keys)]


def _groups(table: Table, data: DataConfig, key: str | None) -> list[str]:
    """Each row's group; a row without one is its own."""
    name = (
        table.find(data.group, "group")
        if data.group
        else "group"
        if "group" in table.columns
        else None
    )
    if name is None:
        return _identities(table, key)
    values = table.column(name)
    if None not in values:
        return [str(value) for value in values]
    alone = _identities(table, key)
    return [alone[i] if value is None else str(value) for i, value in enumerate(values)]


def _limited(table: Table, rows: list[int], limit: int, key: str | None) -> list[int]:
    """`limit` of the rows, drawn by hash, so that the first rows of a sorted source are not
    favoured."""
    if len(rows) <= limit:
        return rows
    identities = _identities(table, key)
    return sorted(sorted(rows, key=lambda i: position(identities[i], "limit"))[:limit])


def _share(table: Table, rows: list[int], data: DataConfig, key: str | None) -> list[int]:
    """`data.fraction` of the rows: the first ones of an order in which each label's rows, by hash,
    are spread evenly."""
    identities, labels = _identities(table, key), _labels(table, data)
    order = sorted(rows, key=lambda i: position(identities[i], "fraction"))
    counts, seen = Counter(labels[i] for i in rows), Counter[str]()
    places: dict[int, float] = {}
    for i in order:
        places[i] = (seen[labels[i]] + 0.5) / counts[labels[i]]
        seen[labels[i]] += 1
    return sorted(sorted(order, key=places.__getitem__)[: max(1, round(data.fraction * len(rows)))])


def _labels(table: Table, data: DataConfig) -> list[str]:
    """The rows' labels, all alike where there are none."""
    name = data.columns.get("label", "label")
    column = table.aliases.get(name, name) if isinstance(name, str) else ""
    return (
        [str(label) for label in table.column(column)]
        if column in table.columns
        else [""] * len(table)
    )


def _check_groups(table: Table, data: DataConfig, own: Sequence[Split | None]) -> None:
    """Raises ConfigError when the source's own splits part a group that the recipe wants whole."""
    if data.group is None:
        return
    seen: dict[Any, Split] = {}
    for group, name in zip(table.column(table.find(data.group, "group")), own, strict=True):
        if group is not None and name and seen.setdefault(group, name) != name:
            raise ConfigError(
                f"{table.where}: {data.group} {group!r} stands in {seen[group]} and {name} of the"
                " source's own splits; name another group, or none to accept them"
            )


def first_skip(table: Table) -> str:
    """How many rows were skipped, and why the first was; nothing if none."""
    if not table.skipped:
        return ""
    key, reason = table.skipped[0]
    return f", {len(table.skipped)} skipped (first: {key}: {reason})"


def _why_empty(table: Table, data: DataConfig, split: Split, own: Sequence[Split | None]) -> str:
    line = (
        f"{table.where}: no rows for the split {split!r}: {len(table)} rows in"
        f" all{first_skip(table)}"
    )
    if any(own):
        return (
            f"{line}; its own splits are {', '.join(sorted({n for n in own if n}))}; give a path"
            " for each split"
        )
    return (
        f"{line}; fractions are {data.fractions}: raise the share, or use a finer group or more"
        " rows"
    )

"""Validation samples by whole groups, and an order in which any run of rows is a mixture."""

from collections import Counter
from collections.abc import Iterable

from quickstart.steps.common import Row, digest

SHARE = 0.01
MOST_ROWS = 500


def with_splits(rows: list[Row], share: float = SHARE, most: int = MOST_ROWS) -> list[Row]:
    """Give groups, in the order of their hashes, to validation until it has `share` of the rows, or
    `most`. All others are for training."""
    sizes = Counter(row["group"] for row in rows)
    room = min(most, round(share * len(rows)))
    validation: set[str] = set()
    for group in sorted(sizes, key=lambda group: (digest("tiny", group), group)):
        if sizes[group] <= room:
            validation.add(group)
            room -= sizes[group]
        if not room:
            break
    for row in rows:
        row["split"] = "validation" if row["group"] in validation else "train"
    return rows


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows in an order that depends on their keys alone."""
    return sorted(rows, key=lambda row: (digest("order", row["key"]), row["key"]))

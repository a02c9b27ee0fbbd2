"""A character n-gram language model with Witten-Bell smoothing (doi 10.1109/18.87000)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

Units = Sequence[int]


class NGram:
    """P(c | h) = (count(hc) + types(h) · P(c | h')) / (count(h) + types(h)), where h' is h without
    its first unit.

    `types(h)`: the number of different units that follow h in the texts. Below the empty history
    all units are equally likely. `end`: the unit that follows every text. `units`: the number of
    units, `end` included.
    """

    def __init__(self, texts: Iterable[Units], order: int, units: int, end: int = 0) -> None:
        self.order, self.units, self.end = order, units, end
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for text in texts:
            whole = (*text, end)
            for i, unit in enumerate(whole):
                for length in range(min(order - 1, i) + 1):
                    self.counts[whole[i - length : i]][unit] += 1

    def probability(self, history: Units, unit: int) -> float:
        """The probability of a unit after a history, of which the last `order` - 1 units count."""
        value = 1 / self.units
        for length in range(min(self.order - 1, len(history)) + 1):
            seen = self.counts.get(tuple(history[len(history) - length :]))
            if seen is None:
                break
            value = (seen[unit] + len(seen) * value) / (seen.total() + len(seen))
        return value

    def __call__(self, history: Units, unit: int) -> float:
        """The logarithm of the probability."""
        return math.log(self.probability(history, unit))

"""Find code that is a copy of known code, or nearly."""

import re
from collections import Counter
from collections.abc import Iterable

_TOKEN = re.compile(r"\w+|[^\w\s]")
LENGTH = 5
"""Tokens in a row that are compared as one."""


def shingles(code: str) -> frozenset[int]:
    """The hashes of all runs of five tokens, without comments' layout and white space."""
    tokens = _TOKEN.findall(code)
    # hashes of tuples of strings differ between runs; they are compared within one run alone
    return frozenset(
        hash(tuple(tokens[i : i + LENGTH])) for i in range(max(1, len(tokens) - LENGTH + 1))
    )


class KnownCode:
    """Functions that must not come back, found by the runs of tokens that they share."""

    def __init__(self, codes: Iterable[str], threshold: float = 0.5) -> None:
        """`threshold`: the Jaccard similarity of the runs from which on two functions are alike."""
        self.threshold = threshold
        self.sizes: list[int] = []
        self.places: dict[int, list[int]] = {}
        for number, code in enumerate(codes):
            runs = shingles(code)
            self.sizes.append(len(runs))
            for run in runs:
                self.places.setdefault(run, []).append(number)

    def has_like(self, code: str) -> bool:
        """Whether a known function is equal or shares at least `threshold` of the runs."""
        runs = shingles(code)
        shared = Counter(number for run in runs for number in self.places.get(run, ()))
        return any(
            count >= self.threshold * (len(runs) + self.sizes[number] - count)
            for number, count in shared.items()
        )

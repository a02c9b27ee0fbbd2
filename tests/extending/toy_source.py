"""A source from outside the package: `words:COUNT`, texts of 1 to 6 words of one group, with the
group as `label` and the number of words as `score`."""

import random

from skillweave.data.sources import KINDS
from skillweave.data.sources.base import MemoryTable, Table

GROUPS = {
    "colour": ("red", "green", "blue", "black", "white"),
    "size": ("small", "large", "tiny", "huge", "tall"),
    "age": ("old", "new", "young", "ancient", "fresh"),
}


@KINDS.register("words")
def open_words(name: str, path: str) -> Table:
    """Seeded texts, always the same."""
    rng, rows = random.Random(0), []
    for number in range(int(name)):
        group = rng.choice(sorted(GROUPS))
        words = rng.choices(GROUPS[group], k=rng.randint(1, 6))
        row = {"text": " ".join(words), "label": group, "score": len(words)}
        rows.append({"key": str(number), **row})
    return MemoryTable(path, rows)

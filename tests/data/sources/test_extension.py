"""A source from outside the package: a kind, a suffix and an installed source."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from skillweave.config.data import DataConfig
from skillweave.data.sources import (
    INSTALLED,
    KINDS,
    SUFFIXES,
    Table,
    open_source,
    open_table,
)


class Squares(Table):
    """The smallest table: numbers and their squares."""

    columns = ["text", "label"]

    def __init__(self, name: str, path: str) -> None:
        super().__init__(path)
        self.count = int(name)

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        row = {"text": str(index), "label": index**2}
        return {name: row.get(name) for name in names}

    def locate(self, index: int) -> str:
        return f"square {index}"


class CountFile(Squares):
    """A file that holds the count."""

    def __init__(self, file: Path, path: str) -> None:
        super().__init__(file.read_text(), path)


@pytest.fixture
def _registered() -> Iterator[None]:
    KINDS.register("squares")(Squares)
    SUFFIXES.register(".count")(CountFile)
    INSTALLED.register("one")(lambda _: ([{"key": "k", "text": "t"}], []))
    yield
    for registry, name in ((KINDS, "squares"), (SUFFIXES, ".count")):
        del registry[name]
    del INSTALLED["one"]


@pytest.mark.usefixtures("_registered")
def test_a_source_needs_no_other_file(tmp_path: Path) -> None:
    data = DataConfig(path="squares:50", fractions=(0.6, 0.2, 0.2))
    splits = [open_source(data, split) for split in ("train", "validation", "test")]
    rows = sorted((row for split in splits for row in split), key=lambda row: row["label"])
    assert rows == [{"key": f"square {i}", "text": str(i), "label": i**2} for i in range(50)]
    assert open_table("squares:4").column("label") == [0, 1, 4, 9]
    (tmp_path / "a.count").write_text("3")
    assert len(open_table(str(tmp_path / "a.count"))) == 3
    assert open_table("installed:one").read(0, ["text"]) == {"text": "t"}

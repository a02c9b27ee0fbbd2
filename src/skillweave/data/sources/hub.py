"""Hugging Face datasets: `hf:NAME`, `hf:NAME:CONFIG` or `hf:FOLDER`, each with `@SPLIT` if only a
part is meant.

`@train[:90%]` and the like are the library's own slices; a folder written by `save_to_disk` takes
only names. Rows are read through the library's Arrow format, which hands over media as the stored
bytes: its own decoders need torchcodec and torchvision, and an Audio feature imports torchcodec
even with `decode=False`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from skillweave.config.base import ConfigError, nearest
from skillweave.data.sources.base import Table


class HubTable(Table):
    """The splits of a dataset one after the other, with a `split` column when there are several;
    class labels as names.

    A row without `key` is known by its content when splits are drawn, or by its number when it
    holds media.
    """

    def __init__(self, parts: dict[str, datasets.Dataset], where: str) -> None:
        super().__init__()
        self.where = where
        self.parts = {name: part.with_format("arrow") for name, part in parts.items()}
        self.names = list(self.parts)
        self._ends = list(accumulate(len(part) for part in parts.values()))
        features = {name: kind for part in parts.values() for name, kind in part.features.items()}
        self.columns = list(features)
        self.media = frozenset(name for name, kind in features.items() if _is_media(kind))
        self._classes = {
            name: kind for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)
        }
        self._split = len(parts) > 1 and "split" not in features
        if self._split:
            self.columns.append("split")
        self._contents: list[str] | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """The named columns of one row."""
        part, row = self._find(index)
        cells = self.parts[part][row]
        present = set(names).intersection(cells.column_names)
        found = {name: self._value(name, cells.column(name)[0].as_py()) for name in present}
        return {
            name: part if name == "split" and self._split else found.get(name) for name in names
        }

    def _find(self, index: int) -> tuple[str, int]:
        number = bisect_right(self._ends, index)
        return self.names[number], index - (self._ends[number - 1] if number else 0)

    def _value(self, name: str, value: Any) -> Any:
        if name not in self._classes or value is None:
            return value
        # -1 marks a label held back
        return self._classes[name].int2str(value) if value >= 0 else None

    def column(self, name: str) -> list[Any]:
        """One column of all rows; media are refused (ValueError)."""
        if name in self.media:
            raise ValueError(
                f"{self.where}: {name} holds media and is read row by row, not as a column"
            )
        values: list[Any] = []
        for part, rows in self.parts.items():
            if name == "split" and self._split:
                values += [part] * len(rows)
            elif name not in rows.column_names:
                values += [None] * len(rows)
            else:
                cells = rows.select_columns([name])[:].column(name).to_pylist()
                values += [self._value(name, cell) for cell in cells]
        return values

    def place(self, index: int) -> str:
        """`split:row`, rows counted from 1."""
        part, row = self._find(index)
        return f"{part}:{row + 1}"

    def identity(self, index: int) -> str:
        """The row's content, or its place when it holds media."""
        if self.media:
            return self.place(index)
        if self._contents is None:
            columns = [
                self.column(name) for name in self.columns if not (name == "split" and self._split)
            ]
            self._contents = [repr(cells) for cells in zip(*columns, strict=True)]
        return self._contents[index]


def open_hub(name: str, where: str) -> Table:
    """A dataset by name or folder. Raises ConfigError when it, its configuration or its split
    cannot be had."""
    part = config = ""
    if "@" in name and not Path(name).exists():
        name, _, part = name.rpartition("@")
    if not Path(name).exists():
        name, _, config = name.partition(":")
    try:
        if any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json")):
            found = _pick(datasets.load_from_disk(name), part, where)
        else:
            found = datasets.load_dataset(name, config or None, split=part or None)
    except DatasetGenerationError as error:
        hint = (
            "; a folder of sound or clips opens without hf:"
            if isinstance(error.__cause__, ImportError)
            else ""
        )
        raise ConfigError(f"{where}: {error.__cause__ or error}{hint}") from None
    # missing, offline or not allowed; an unknown configuration or split
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None
    parts = dict(found) if isinstance(found, datasets.DatasetDict) else {part or "train": found}
    return HubTable({str(split): rows for split, rows in parts.items()}, where)


def _pick(saved: Any, part: str, where: str) -> Any:
    """One split of a saved dataset."""
    if not part:
        return saved
    if not isinstance(saved, datasets.DatasetDict) or part not in saved:
        names = [str(split) for split in saved] if isinstance(saved, datasets.DatasetDict) else []
        raise ConfigError(f"{where}: the saved dataset has no split {part!r}{nearest(part, names)}")
    return saved[part]


def _is_media(kind: Any) -> bool:
    """Whether a feature holds files or bytes."""
    return isinstance(kind, datasets.Image | datasets.Audio | datasets.Video) or (
        isinstance(kind, datasets.Value) and kind.dtype in ("binary", "large_binary")
    )

"""Hugging Face datasets: `hf:NAME`, `hf:NAME:CONFIG` or `hf:FOLDER`, with `@SPLIT` for one split.

`@train[:90%]` and the like are slices of the library datasets; a folder that `save_to_disk` wrote
takes only names. Rows are read in the library's Arrow format, which returns media as the stored
bytes: its own decoders need torchcodec and torchvision, and an Audio feature imports torchcodec
even with `decode=False`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillweave.config.base import ConfigError, nearest
from skillweave.data.sources.base import KINDS, PATH_KINDS, ConcatTable, Row, Table
from skillweave.data.sources.class_labels import labelled, with_names

if TYPE_CHECKING:
    import datasets

SAVED_DATASET = ("dataset_dict.json", "state.json")
"""Files of a folder that `save_to_disk` wrote: of several splits, or of one."""


def is_saved_dataset(folder: Path) -> bool:
    """Whether the library datasets saved this folder."""
    return any((folder / name).is_file() for name in SAVED_DATASET)


class HubTable(Table):
    """One split of a dataset. Class labels are names, in lists too; a label of -1, which marks a
    withheld label, is None.

    `split`: the content of an additional column `split`, if any.
    """

    def __init__(self, rows: datasets.Dataset, path: str, split: str | None) -> None:
        super().__init__(path)
        features = rows.features
        self.rows, self.split = rows.with_format("arrow"), split
        self._features = list(features)
        self.columns = self._features if split is None else [*features, "split"]
        self.media = frozenset(name for name, kind in features.items() if _is_media(kind))
        self._labels = labelled(features.to_dict())

    @property
    def content_columns(self) -> list[str]:
        """The dataset's own columns."""
        return self._features

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one row."""
        cells = self.rows[index]
        row = {"split": self.split} if self.split else {}
        for name in set(names).intersection(cells.column_names):
            row[name] = with_names(self._labels.get(name), cells.column(name)[0].as_py())
        return {name: row.get(name) for name in names}

    def read_column(self, name: str) -> list[Any]:
        """One column of all rows."""
        if name not in self._features:
            return [self.split if name == "split" else None] * len(self)
        cells = self.rows.select_columns([name])[:].column(name).to_pylist()
        return [with_names(self._labels.get(name), cell) for cell in cells]


PATH_KINDS.add("hf")


@KINDS.register("hf")
def open_hub(name: str, path: str) -> Table:
    """A dataset by name or folder. Raises ConfigError when it, its configuration or its split
    cannot be loaded."""
    try:
        import datasets
        from datasets.exceptions import DatasetGenerationError
    except ModuleNotFoundError as error:
        raise ConfigError(f"{path}: {error}; pip install skillweave[data]") from None
    split = config = ""
    if "@" in name and not Path(name).exists():
        name, _, split = name.rpartition("@")
    if not Path(name).exists():
        name, _, config = name.partition(":")
    try:
        if is_saved_dataset(Path(name)):
            found = _choose_split(datasets.load_from_disk(name), split, path)
        else:
            found = datasets.load_dataset(name, config or None, split=split or None)
    except DatasetGenerationError as error:
        hint = ""
        if isinstance(error.__cause__, ImportError):
            hint = "; a folder of sound or video opens without hf:"
        raise ConfigError(f"{path}: {error.__cause__ or error}{hint}") from None
    # missing, offline or not allowed; an unknown configuration or split
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    parts = found if isinstance(found, datasets.DatasetDict) else {split or "train": found}
    named = len(parts) > 1 and not any("split" in rows.features for rows in parts.values())
    names = [str(name) for name in parts]
    tables = [
        HubTable(rows, path, name if named else None)
        for name, rows in zip(names, parts.values(), strict=True)
    ]
    return ConcatTable(tables, names, path)


def _choose_split(saved: Any, split: str, path: str) -> Any:
    """One split of a saved dataset, or all of it for an empty name."""
    if not split:
        return saved
    names = list(map(str, saved)) if isinstance(saved, dict) else []
    if split not in names:
        raise ConfigError(
            f"{path}: the saved dataset has no split {split!r}{nearest(split, names)}"
        )
    return saved[split]


def _is_media(kind: Any) -> bool:
    """Whether a feature holds files or bytes."""
    import datasets

    if isinstance(kind, datasets.Value):
        return kind.dtype in ("binary", "large_binary")
    return isinstance(kind, datasets.Image | datasets.Audio | datasets.Video)

"""A format for other programs: what writes it, and what reads it back to compare the outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config import ConfigError, choose
from skillweave.config.registry import Registry
from skillweave.evaluation.agreement import SAME
from skillweave.model.model import Model
from skillweave.storage import replacing, write_json

REPORT_FILE = "export.json"
EXTRA = "pip install 'skillweave[export]'"


@dataclass(frozen=True)
class Exported:
    """A file or folder that was written. `path`: relative to the folder of the export. `gives`:
    `vectors`, `logits`, ... . `inputs`: name → shape, with names for sizes that are free.
    `largest_relative_error`: of the outputs on the compared samples, as a share of the largest.
    `quality`: further figures, such as how often the largest logit is the same."""

    path: str
    gives: str
    inputs: dict[str, list[int | str]]
    samples: int
    bytes: int
    largest_relative_error: float
    quality: dict[str, float] = field(default_factory=dict)


class Format(ABC):
    """A way to store a model. `modules`: what must be installed to write and compare it.
    `tolerance`: the largest relative error that rounding explains; None for a format that changes
    the numbers on purpose, whose loss is stated."""

    summary: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    tolerance: ClassVar[float | None] = SAME

    def require_installed(self) -> None:
        """Raise ConfigError for a library that is missing."""
        if missing := [name for name in self.modules if find_spec(name) is None]:
            raise ConfigError(f"{', '.join(missing)}: not installed ({EXTRA})")

    @abstractmethod
    def export(self, model: Model, batch: Batch, folder: Path) -> list[Exported]:
        """Write the model of the batch's task into a folder, read it back and compare the outputs
        on the batch. Raises ConfigError for a model that the format cannot express."""


FORMATS: Registry[type[Format]] = Registry("export format")
"""Name of a format → its class."""


def export_model(
    model: Model, to: str, batch: Batch, out: str | Path, what: str = "given samples"
) -> dict[str, Any]:
    """Write a model in a format, with its configuration and assets (tokenizers), and return the
    content of export.json.

    `batch`: samples of the task that is exported, on which both are compared. `what`: what these
    are. The folder is complete or absent. Raises ConfigError for an unknown format, a missing
    library, a model that it cannot express, and outputs that differ by more than rounding.
    """
    made = choose(FORMATS, to, "export format")()
    made.require_installed()
    task = batch.layout.task
    with replacing(Path(out)) as partial:
        partial.mkdir(parents=True)
        exported = made.export(model.eval(), batch, partial)
        for one in exported:
            if made.tolerance is not None and not one.largest_relative_error <= made.tolerance:
                raise ConfigError(
                    f"{one.path}: differs by {one.largest_relative_error:.1e} of the largest"
                    f" output, more than rounding ({made.tolerance:.0e}), so nothing was written"
                )
        model.save_description(partial)
        about = {
            "format": to,
            "task": task,
            "compared_on": what,
            "files": [asdict(one) for one in exported],
        }
        write_json(partial / REPORT_FILE, about)
    return about


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)


def vector_quality(found_ND: Tensor, expected_ND: Tensor) -> dict[str, float]:
    """How much of unit vectors is kept: the mean and the smallest cosine between both, and for what
    share of the samples the most similar other sample is the same."""
    cosine_N = (found_ND * expected_ND).sum(1)
    quality = {"mean_cosine": cosine_N.mean().item(), "least_cosine": cosine_N.min().item()}
    if len(found_ND) < 3:
        return quality

    def nearest(x_ND: Tensor) -> Tensor:
        return (x_ND @ x_ND.T).fill_diagonal_(-torch.inf).argmax(1)

    same = nearest(found_ND) == nearest(expected_ND)
    return quality | {"same_nearest": same.float().mean().item()}


def logit_quality(found: Tensor, expected: Tensor) -> dict[str, float]:
    """For what share of samples, or of their positions, the largest logit is the same."""
    return {"same_largest": (found.argmax(-1) == expected.argmax(-1)).float().mean().item()}

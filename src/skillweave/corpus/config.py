"""The file that `skillweave clean` reads."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from skillweave.config.base import Config, ConfigError, Positive, Whole, nearest
from skillweave.config.reading import parse_yaml
from skillweave.corpus.sources import AnySource
from skillweave.corpus.step import AnyStep, CorpusStep

PROVENANCE = {"id": "string", "source": "string", "file": "string", "location": "string"}
"""Fields that say where a row is from → their Arrow types. `id` is made of the others."""
INTERNAL = {"page": "string", "html": "large_string"}
"""Fields that steps use and that are no part of the clean corpus. `page`: the file's name within
its source; None for a page of an archive."""


class ShardsConfig(Config):
    """How the clean rows are written."""

    format: Literal["parquet", "webdataset"] = "parquet"
    """Parquet files, or tar files with a text, a picture and a json member for each row."""
    rows: Positive = 50_000
    """Rows of a shard."""


class CleanConfig(Config):
    """A corpus: what it is made of, what is done to it, and where it is written."""

    out: str
    """The folder of the clean shards, the report, and the state from which an interrupted run
    continues. It may be in an object store, such as `s3://bucket/corpus`."""
    work: str | None = None
    """The folder on the disk for the state, where `out` is in an object store. All machines of a
    cluster must share it."""
    sources: dict[str, AnySource] = Field(min_length=1)
    """Name → a source of raw rows. The order decides which of equal rows stays."""
    steps: list[AnyStep] = Field(min_length=1)
    """What is done to the rows, in this order."""
    shards: ShardsConfig = ShardsConfig()
    """How the clean rows are written."""
    samples: Whole = 5
    """How many dropped rows the report shows for each reason."""
    modules: tuple[str, ...] = ()
    """Python modules with further steps and sources, imported first."""

    @field_validator("sources")
    @classmethod
    def _check_names(cls, sources: dict[str, Any]) -> dict[str, Any]:
        for name in sources:
            if not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(f"{name!r}: a name of letters, digits, '.', '-' and '_'")
        return sources

    @model_validator(mode="after")
    def _check_work(self) -> CleanConfig:
        if self.remote and self.work is None:
            raise ValueError(
                f"work: {self.out} is in an object store; give a folder on the disk for the state"
            )
        if not self.remote and self.work is not None:
            raise ValueError("work: only for an `out` in an object store; leave it out")
        return self

    @model_validator(mode="after")
    def _check_fields(self) -> CleanConfig:
        fields = self.input_fields()
        titles: set[str] = set()
        for step in self.steps:
            if step.title in titles:
                raise ValueError(f"steps: two are called {step.title!r}; give one a `name`")
            titles.add(step.title)
            for name in step.reads:
                if name not in fields:
                    raise ValueError(
                        f"steps: {step.title} reads {name!r}, which no source and no step before it"
                        f" gives{nearest(name, fields)}"
                    )
            for name, kind in step.writes.items():
                if name in PROVENANCE or fields.get(name, kind) != kind:
                    raise ValueError(f"steps: {step.title} writes {name!r}, which is taken")
            fields |= step.writes
        return self

    @property
    def remote(self) -> bool:
        """Whether the corpus is written into an object store."""
        return "://" in self.out

    @property
    def folder(self) -> Path:
        """The folder on the disk: `out`, or `work` where that is in an object store."""
        return Path(self.work or self.out)

    def input_fields(self) -> dict[str, str]:
        """Field → Arrow type of what the sources give."""
        fields = {**PROVENANCE, "page": "string"}
        for name, source in self.sources.items():
            for field, kind in {**source.gives, **dict.fromkeys(source.keep, "string")}.items():
                if field in PROVENANCE or fields.get(field, kind) != kind:
                    raise ValueError(f"sources.{name}: keep: {field!r} is taken by the pipeline")
                fields[field] = kind
        return fields

    def fields(self, before: int | None = None) -> dict[str, str]:
        """Field → Arrow type of rows after all steps, or before a step. Fields that only earlier
        steps read are left out."""
        fields = self.input_fields()
        for step in self.steps[:before]:
            fields |= step.writes
        later = self.steps[before:] if before is not None else []
        needed = {name for step in later for name in step.reads}
        page = "html" in needed
        return {
            name: kind
            for name, kind in fields.items()
            if name not in INTERNAL or name in needed or (page and before is not None)
        }

    def corpus_steps(self) -> list[int]:
        """The places of the steps that must see all rows."""
        return [i for i, step in enumerate(self.steps) if isinstance(step, CorpusStep)]


def read_config(file: str | Path) -> CleanConfig:
    """Read a configuration. Raises ConfigError with all faults at once."""
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give a configuration in YAML")
    data = parse_yaml(path.read_bytes(), path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping with out, sources and steps")
    for name in data.get("modules") or ():
        try:
            import_module(str(name))
        except ImportError as error:
            raise ConfigError(
                f"{path}: modules: {name}: {error}; install it, or add its folder to PYTHONPATH"
            ) from None
    return CleanConfig.parse(data, str(path))

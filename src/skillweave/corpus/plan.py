"""What a run does, in which pieces, and where each piece is stored.

The rows of a unit pass all steps up to the first that must see all rows; that is a stage. Each
piece of work, a unit in a stage or a shard, is a pure function of the configuration and the files
before it. It is written as a whole or not at all, so a run that was killed continues with the
pieces that are missing, and the result does not depend on who did which piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from skillweave.config.base import ConfigError
from skillweave.corpus.config import CleanConfig
from skillweave.corpus.sources import File, Part
from skillweave.corpus.step import CorpusStep, Step
from skillweave.storage import read_json, write_json

STATE = "state"
"""The folder in `out` with the plan and the unfinished pieces."""
ROWS_FILE, IDS_FILE, DROPPED_FILE = "rows.parquet", "ids.parquet", "dropped.parquet"
STATS_FILE = "stats.json"


@dataclass(frozen=True)
class Stage:
    """Steps that are done to the rows of a unit in one go. `judging`: the step before them that has
    seen all rows. `collecting`: the step after them that must see all rows. Both are places in the
    list of steps."""

    number: int
    steps: range
    judging: int | None
    collecting: int | None


@dataclass(frozen=True)
class Plan:
    """`units`: the name of the source and the parts of each unit. `limit`: the most rows of a unit
    that are read."""

    config: CleanConfig
    folder: Path
    units: list[tuple[str, list[Part]]]
    limit: int | None = None

    @classmethod
    def make(cls, config: CleanConfig, folder: Path) -> Plan:
        """List the files of all sources. Raises ConfigError for a source without files."""
        units = [
            (name, parts) for name, source in config.sources.items() for parts in source.units()
        ]
        return cls(config, folder, units)

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages, in order."""
        places = self.config.corpus_steps()
        begins = [0, *(place + 1 for place in places)]
        ends = [*places, len(self.config.steps)]
        return [
            Stage(
                number,
                range(begin, end),
                begin - 1 if number else None,
                end if end < len(self.config.steps) else None,
            )
            for number, (begin, end) in enumerate(zip(begins, ends, strict=True))
        ]

    def corpus_step(self, place: int) -> CorpusStep:
        """A step that sees all rows."""
        step = self.config.steps[place]
        assert isinstance(step, CorpusStep)
        return step

    def steps_of(self, stage: Stage) -> list[Step]:
        """The steps of a stage."""
        return [self.config.steps[place] for place in stage.steps]

    def unit_folder(self, stage: int, unit: int) -> Path:
        """Where a unit's results of a stage are."""
        return self.folder / f"stage-{stage:02}" / f"{unit:06}"

    def decisions_folder(self, place: int) -> Path:
        """Where the records of a step that saw all rows are."""
        return self.folder / f"decisions-{place:02}"

    def stats(self, stage: int, unit: int) -> dict[str, Any]:
        """What was counted in a unit."""
        return read_json(self.unit_folder(stage, unit) / STATS_FILE)

    def unit_starts(self, stage: int) -> list[int]:
        """The number of the first row of each unit among the rows that leave a stage, and the
        number of all rows. The stage must be done."""
        file = self.folder / f"starts-{stage:02}.json"
        if not file.is_file():
            counts = [self.stats(stage, unit)["rows"] for unit in range(len(self.units))]
            write_json(file, {"starts": list(accumulate(counts, initial=0))})
        return read_json(file)["starts"]

    def missing_units(self, stage: int) -> list[int]:
        """The units of a stage that are not done."""
        return [
            unit
            for unit in range(len(self.units))
            if not (self.unit_folder(stage, unit) / STATS_FILE).is_file()
        ]

    def save(self) -> None:
        """Write the plan."""
        units = [
            [name, [[*part.file, part.start, part.stop] for part in parts]]
            for name, parts in self.units
        ]
        write_json(self.folder / "plan.json", {"config": settings(self.config), "units": units})

    @classmethod
    def restore(cls, config: CleanConfig, folder: Path) -> Plan | None:
        """The plan of an earlier run in a folder; None if there is none. Raises ConfigError for a
        run with other settings, and if a file has changed since."""
        saved = read_json(folder / "plan.json")
        if not saved:
            return None
        own = settings(config)
        if saved["config"] != own:
            changed = [key for key in own if saved["config"].get(key) != own[key]]
            raise ConfigError(
                f"{folder.parent}: was begun with other settings ({', '.join(changed)}); give"
                " another `out`, or remove the folder"
            )
        units = [
            (name, [Part(File(*part[:4]), *part[4:]) for part in parts])
            for name, parts in saved["units"]
        ]
        plan = cls(config, folder, units)
        plan.require_unchanged()
        return plan

    def require_unchanged(self) -> None:
        """Raise ConfigError for files that were changed, added or removed since the plan was
        made."""
        planned = {(name, part.file) for name, parts in self.units for part in parts}
        found = {(name, f) for name, source in self.config.sources.items() for f in source.files()}
        if planned != found:
            name, file = sorted(planned ^ found)[0]
            raise ConfigError(
                f"{file.path}: source {name!r} has changed since this corpus was begun; restore the"
                f" file, or give another `out`"
            )

    def files(self) -> Iterator[File]:
        """The files of all sources."""
        for _, parts in self.units:
            for part in parts:
                yield part.file


def settings(config: CleanConfig) -> dict[str, Any]:
    """The settings that the clean corpus depends on, as JSON."""
    dumped = config.model_dump(mode="json", exclude={"out", "work", "samples"})
    return json.loads(json.dumps(dumped, default=str))

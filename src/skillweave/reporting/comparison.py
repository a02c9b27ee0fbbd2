"""Pages and tables that compare runs, the trials of a sweep, and learning rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillweave.config import ConfigError
from skillweave.config.errors import reading
from skillweave.config.reading import parse_yaml
from skillweave.pages import write_page
from skillweave.recipe import RECIPE_FILE
from skillweave.reporting.formatting import metric_title
from skillweave.reporting.logs import METRICS_FILE, read_log
from skillweave.reporting.terminal import PlainTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNCOMPARED = ("name", "output", "fingerprint", "start_from")
"""Settings that do not tell runs apart: their last or first part."""


@dataclass(frozen=True)
class ComparedRun:
    """A run: its settings by path, and the lines of metrics.jsonl."""

    name: str
    settings: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]

    @property
    def steps(self) -> int:
        """The last step in the logs."""
        return max((line["step"] for line in self.lines), default=0)

    @property
    def seconds(self) -> float:
        """Seconds of training."""
        return max((float(line.get("seconds", 0)) for line in self.lines), default=0.0)

    def mean(self, name: str) -> float | None:
        """The mean of a figure of the training over the logs; None if they lack it."""
        found = [line[name] for line in self.lines if isinstance(line.get(name), int | float)]
        return sum(found) / len(found) if found else None

    def best(self) -> dict[str, tuple[str, float]]:
        """Task → its first metric and the best value in a validation; its loss without one."""
        from skillweave.metrics import METRICS

        found: dict[str, tuple[str, float]] = {}
        for line in self.lines:
            if line["kind"] != "validation":
                continue
            metrics = line.get("metric") or {"loss": line.get("loss")}
            name, value = next(iter(metrics.items()))
            if value is None:
                continue
            lower = name == "loss" or (name in METRICS and METRICS[name].lower)
            before = found.get(line["task"])
            if before is None or (value < before[1] if lower else value > before[1]):
                found[line["task"]] = name, float(value)
        return found


def read_run(folder: Path) -> ComparedRun:
    """A run folder. Raises ConfigError for a folder that is none."""
    file = folder / RECIPE_FILE
    if not file.is_file():
        raise ConfigError(f"{folder}: no run; it has no {RECIPE_FILE}")
    with reading(file, "the recipe of a run"):
        settings = dict(_leaves(parse_yaml(file.read_bytes(), file)))
    return ComparedRun(folder.name, settings, read_log(folder / METRICS_FILE))


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The run folders among and in some folders, each once. Raises ConfigError for a folder without
    any."""
    found: dict[Path, None] = {}
    for folder in folders:
        if (folder / RECIPE_FILE).is_file():
            inside = [folder]
        else:
            inside = sorted(file.parent for file in folder.glob(f"*/{RECIPE_FILE}"))
        if not inside:
            raise ConfigError(f"{folder}: no run, and no folder of runs")
        found |= dict.fromkeys(inside)
    return list(found)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def compare_runs(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """What `skillweave runs` shows: `differences`, path → a value for each run; and a row for each
    run."""
    paths = list(dict.fromkeys(path for run in runs for path in run.settings))
    differences = {
        path: [run.settings.get(path) for run in runs]
        for path in paths
        if not {path.split(".")[0], path.split(".")[-1]} & {*UNCOMPARED}
        and len({repr(run.settings.get(path)) for run in runs}) > 1
    }
    rows = [
        {
            "run": run.name,
            "steps": run.steps,
            "seconds": run.seconds,
            "samples_per_second": run.mean("samples_per_second"),
            "tokens_per_second": run.mean("tokens_per_second"),
            "memory_gb": max((float(x.get("memory_gb", 0)) for x in run.lines), default=0.0),
            "best": {task: {"metric": m, "value": v} for task, (m, v) in run.best().items()},
        }
        for run in runs
    ]
    return {"runs": rows, "differences": differences}


def runs_cells(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the table of runs."""
    tasks = list(dict.fromkeys(task for row in found["runs"] for task in row["best"]))
    columns = ["run", "steps", "seconds", "samples/s", "tokens/s", "memory GB", *tasks]
    columns += list(found["differences"])
    rows = []
    for i, row in enumerate(found["runs"]):
        best = [row["best"].get(task) for task in tasks]
        rows.append(
            [
                row["run"],
                f"{row['steps']:,}",
                f"{row['seconds']:,.0f}",
                _number(row["samples_per_second"]),
                _number(row["tokens_per_second"]),
                f"{row['memory_gb']:.2f}" if row["memory_gb"] else "",
                *(f"{metric_title(b['metric'])} {b['value']:.4g}" if b else "" for b in best),
                *(str(values[i]) for values in found["differences"].values()),
            ]
        )
    return columns, rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def cells_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> PlainTable:
    """A table for the terminal, whose columns but the first are at the right."""
    table = PlainTable(title, columns[:1], columns[1:])
    for row in rows:
        table.add_row(*row)
    return table


def write_comparison(
    path: Path,
    title: str,
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    figures: Sequence[Figure] = (),
    names: Sequence[str] = (),
    remarks: Sequence[str] = (),
    best: int = -1,
) -> None:
    """Write an HTML page that needs no network: a table, whose row `best` stands out, and
    `figures`, of which `names` explains the colours. Raises OSError when it cannot be written."""
    from skillweave.reporting.figure import DARK_MODE_CSS, SERIES, to_svg

    write_page(
        path,
        "skillweave.reporting",
        "comparison.html.j2",
        title=title,
        columns=columns,
        rows=rows,
        figures=figures,
        names=names,
        remarks=remarks,
        best=best,
        svg=to_svg,
        series=SERIES,
        dark_mode_css=DARK_MODE_CSS,
    )

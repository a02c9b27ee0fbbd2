"""The command `clean`: a corpus from raw data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from skillweave.cli.shared import Results, started

if TYPE_CHECKING:
    from skillweave.corpus.pipeline import Explanation


def clean(
    config: Annotated[
        Path, Argument(metavar="CONFIG", help="The sources, the steps and the folder, in YAML.")
    ],
    *,
    engine: Annotated[
        Literal["native", "ray"],
        Option(help="Where Daft runs the work: here, or on a Ray cluster. The result is the same."),
    ] = "native",
    processes: Annotated[
        int | None,
        Option(metavar="N", min=1, help="Processes; the default is one for each core."),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show what the steps do to a sample; keep nothing.")
    ] = False,
    rows: Annotated[
        int, Option(metavar="N", min=1, help="Rows of each source for --dry-run.")
    ] = 1000,
    explain: Annotated[
        str | None, Option(metavar="ROW", help="Show what each step does to the row of this id.")
    ] = None,
) -> Results:
    """Make a clean corpus from raw web data.

    The same call again continues where it was interrupted.
    """
    from skillweave import corpus
    from skillweave.reporting.terminal import console, progress

    settings = corpus.read_config(config)
    started()
    if explain is not None:
        told = corpus.explain(settings, explain)
        _show_explanation(told)
        return [vars(one) for one in told]
    if dry_run:
        found = corpus.dry_run(settings, rows)
    else:
        with progress() as step:
            found = corpus.clean(settings, engine=engine, processes=processes, progress=step)
    console().print(_funnel(found, f"{'a sample for ' if dry_run else ''}{settings.out}"))
    if not dry_run:
        out = settings.out.rstrip("/")
        print(f"{out}/shards: {len(found['shards']):,} shards; report: {out}/report.html")
    return found


def _funnel(found: dict[str, Any], title: str) -> Any:
    """What each step left of the rows."""
    from skillweave.reporting.terminal import PlainTable, plain

    numbers = ("rows", "dropped", "share", "changed", "MB/s")
    table = PlainTable(title, ("step", "most frequent reasons"), numbers)
    for step in found["funnel"]:
        reasons = [f"{one['reason']} ({one['rows']:,})" for one in step["reasons"][:3]]
        speed = step["megabytes_per_second"]
        table.add_row(
            step["step"],
            ", ".join(reasons) + (", ..." if len(step["reasons"]) > 3 else ""),
            f"{step['rows']:,}",
            f"{step['dropped']:,}",
            f"{step['share']:.1%}",
            f"{step['changed']:,}",
            "" if speed is None else f"{speed:,.1f}",
        )
    rows = found["rows"]
    table.caption_justify = "left"
    table.caption = plain(f"{rows['kept']:,} of {rows['read'] + rows['made']:,} rows are kept")
    return table


def _show_explanation(told: list[Explanation]) -> None:
    from skillweave.config.names import printable

    for one in told:
        print(printable(f"{one.step}: {one.outcome}{one.detail and f': {one.detail}'}"))
        for name, (before, after) in one.changes.items():
            print(printable(f"    {name}: {_shown(before)} → {_shown(after)}"))


def _shown(value: Any) -> str:
    """A value of a field in a line."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:100]} ... {text[-50:]}"

"""The report of a clean corpus: JSON, and one HTML page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skillweave.corpus.plan import Plan
from skillweave.corpus.step import CorpusStep
from skillweave.corpus.unit import READ, Contents, Counts
from skillweave.pages import write_page
from skillweave.storage import read_json, write_json

JSON_FILE, HTML_FILE = "report.json", "report.html"


def build(plan: Plan, shards: Sequence[str], seconds: float) -> dict[str, Any]:
    """Everything that the report shows. Raises RuntimeError if rows are missing: a fault of this
    package."""
    counts = {READ: Counts(), **{step.title: Counts() for step in plan.config.steps}}
    contents = {name: Contents() for name in plan.config.sources}
    kept = 0
    for stage in plan.stages:
        for unit in range(len(plan.units)):
            stats = plan.stats(stage.number, unit)
            for name, found in stats["steps"].items():
                counts[name].add(found, plan.config.samples)
            for name, found in stats["sources"].items():
                contents[name].add(found)
            kept += stats["rows"] if stage is plan.stages[-1] else 0
    read, made = counts[READ].rows, sum(count.made for count in counts.values())
    dropped = sum(count.dropped for count in counts.values())
    if read + made != kept + dropped:
        raise RuntimeError(f"{read:,} rows + {made:,} made ≠ {kept:,} kept + {dropped:,} dropped")
    summaries = _summaries(plan)
    for name, summary in summaries.items():
        counts[name].seconds += summary.pop("seconds")
    total = Contents()
    for found in contents.values():
        total.add(dict(vars(found)))
    return {
        "rows": {"read": read, "made": made, "dropped": dropped, "kept": kept},
        "sources": {name: _contents(found) for name, found in contents.items()},
        "total": _contents(total),
        "funnel": [_step(name, count) for name, count in counts.items()],
        "summaries": {name: summary for name, summary in summaries.items() if summary},
        "notes": {step.title: notes for step in plan.config.steps if (notes := step.notes())},
        "files": len({file.path for file in plan.files()}),
        "shards": list(shards),
        "seconds": round(seconds, 2),
    }


def _summaries(plan: Plan) -> dict[str, dict[str, Any]]:
    return {
        step.title: read_json(plan.decisions_folder(place) / "summary.json")
        for place, step in enumerate(plan.config.steps)
        if isinstance(step, CorpusStep)
    }


def _contents(found: Contents) -> dict[str, Any]:
    plain = dict(vars(found))
    plain["languages"] = dict(Counter(plain["languages"]).most_common())
    plain["lengths"] = {k: found.lengths[k] for k in sorted(found.lengths, key=int)}
    plain["average_length"] = round(found.tokens / found.passages, 1) if found.passages else 0
    return plain


def _step(name: str, count: Counts) -> dict[str, Any]:
    reasons = [
        {"reason": reason, "rows": number, "samples": count.samples.get(reason, [])}
        for reason, number in sorted(count.reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return {
        "step": name,
        "rows": count.rows,
        "dropped": count.dropped,
        "share": round(count.dropped / count.rows, 4) if count.rows else 0.0,
        "made": count.made,
        "changed": count.changed,
        "reasons": reasons,
        "bytes": count.bytes,
        "seconds": round(count.seconds, 4),
        "megabytes_per_second": (
            round(count.bytes / 1e6 / count.seconds, 2) if count.seconds else None
        ),
    }


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Write the page, then the JSON, which says that the corpus is finished."""
    write_page(
        folder / HTML_FILE,
        "skillweave.corpus",
        "report.html.j2",
        filters={"count": lambda number: f"{number:,}", "size": format_bytes, "ranges": ranges},
        report=found,
        name=folder.resolve().name,
        lengths=length_ranges(found["total"]["lengths"]),
    )
    write_json(folder / JSON_FILE, found)


def format_bytes(number: float) -> str:
    """A number of bytes with a unit, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def ranges(table: Mapping[str, int]) -> dict[str, int]:
    """A table by numbers, such as sizes of clusters, by ranges from 8 on; other tables as they
    are."""
    if not all(key.isdigit() for key in table):
        return dict(table)
    found: Counter[str] = Counter()
    for key, count in table.items():
        low = 2 ** (int(key).bit_length() - 1)
        found[key if low < 8 else f"{low:,}-{2 * low - 1:,}"] += count
    return dict(found)


def length_ranges(lengths: Mapping[str, int]) -> list[tuple[str, int]]:
    """Numbers of tokens as ranges with their counts."""
    return [
        (f"{2 ** (int(bits) - 1):,}-{2 ** int(bits) - 1:,}" if int(bits) > 1 else bits, count)
        for bits, count in lengths.items()
    ]

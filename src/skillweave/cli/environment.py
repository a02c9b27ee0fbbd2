"""The command `doctor`: what this machine offers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from skillweave.cli.shared import Incomplete, Results

MARKS = {"ok": "✓", "absent": "–", "warning": "!", "fault": "✗"}


def doctor() -> Results:
    """Check the environment: versions, devices, memory, disk, codecs, access tokens.

    The exit status is 2 if something that skillweave needs is missing or too old.
    """
    from skillweave.environment import examine

    checks = examine(Path.cwd())
    width = max(len(check.name) for check in checks)
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            print(group)
        remedy = f" · {check.remedy}" if check.remedy else ""
        print(f"  {MARKS[check.status]} {check.name:{width}}  {check.found}{remedy}")
    found = [asdict(check) for check in checks]
    if faults := [check for check in checks if check.status == "fault"]:
        told = "; ".join(f"{one.name}: {one.found} ({one.remedy})" for one in faults)
        raise Incomplete(told, found)
    return found

"""Known vulnerabilities of the packages that constraints.txt pins, by pip-audit.

    python .ci/audit.py

Exit status 1 where one is found. A machine that cannot reach an advisory database, or that a mirror
answers without advisories, says so and passes: it has found nothing, in either direction.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATABASES = ("pypi", "osv")
"""Advisory databases of pip-audit, asked one after the other until one knows the packages."""
SECONDS = 300


def ask(database: str) -> list[dict[str, Any]]:
    """What a database says of each package that it knows; nothing where it cannot be reached."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = [sys.executable, "-m", "pip_audit", "--requirement", ROOT / "constraints.txt"]
        words += ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "15"]
        words += ["--vulnerability-service", database, "--format", "json", "--output", report]
        try:
            subprocess.run(words, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return []
        if not report.is_file():
            return []
        return [one for one in json.loads(report.read_text())["dependencies"] if "vulns" in one]


def main() -> int:
    """Ask, and tell what was found."""
    for database in DATABASES:
        if known := ask(database):
            break
    else:
        print("audit skipped: no advisory database can be reached from here; nothing was audited")
        return 0
    found = [(one, fault) for one in known for fault in one["vulns"]]
    for one, fault in found:
        fixed = ", ".join(fault["fix_versions"]) or "none yet"
        print(f"{one['name']} {one['version']}: {fault['id']} (fixed in: {fixed})")
    print(f"{len(known)} pinned packages audited ({database}), {len(found)} known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

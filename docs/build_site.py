"""Build the documentation as a site in build/site, which needs no network and no server.

python docs/build_site.py

The pages are written for a reader of the repository too, so they link to files all over it. This
gathers every file that can be reached by links from the first page, at the same relative place,
under build/pages; `zensical.toml` says how Zensical builds the site from there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST = Path("README.md")
ASSETS = Path("docs/site")
"""What the pages of the site use besides, such as scripts."""
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]+)|<img src=\"([^\"]+)\"")


def linked(page: Path) -> set[Path]:
    """The files that a page links to, relative to the root."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    found = [first or second for first, second in LINK.findall(text)]
    return {Path(os.path.normpath(page.parent / name)) for name in found}


def gather(first: Path) -> set[Path]:
    """All files reached from a page, itself included."""
    seen: set[Path] = set()
    left = {first}
    while left:
        page = left.pop()
        seen.add(page)
        if page.suffix == ".md":
            left |= linked(page) - seen
    return seen


if __name__ == "__main__":
    pages = ROOT / "build" / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    assets = {file.relative_to(ROOT) for file in (ROOT / ASSETS).iterdir()}
    for file in gather(FIRST) | assets:
        (pages / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, pages / file)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    sys.exit(subprocess.run(command, cwd=ROOT).returncode)

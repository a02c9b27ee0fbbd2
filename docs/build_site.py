"""Build the documentation as a site in build/site, which needs no network and no server.

python docs/build_site.py

The pages are written for a reader of the repository too, so they link to files all over it. This
gathers every file that can be reached by links from the first page, at the same relative place,
under build/pages, with notebooks as pages; `zensical.toml` says how Zensical builds the site from
there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).parents[1]
FIRST = Path("README.md")
ASSETS = Path("docs/site")
"""What the pages of the site use besides, such as scripts."""
PAGES = (".md", ".ipynb")
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]+)|<img src=\"([^\"]+)\"")
NOTEBOOK = re.compile(r"(\]\((?![a-z]+:)[^)#\s]+)\.ipynb")


def read(page: Path) -> str:
    """A page as Markdown."""
    file = ROOT / page
    return file.read_text("utf-8") if page.suffix == ".md" else "\n\n".join(parts_of(file))


def parts_of(notebook: Path) -> Iterator[str]:
    """The cells of a notebook and what they show."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        yield cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```"
        yield from map(shown, cell.get("outputs", ()))


def shown(output: Any) -> str:
    """An output: HTML or a drawing as it is, a picture, or text."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    for kind in ("text/html", "image/svg+xml"):
        if kind in data:
            return f"<div>{data[kind].strip()}</div>"
    if "image/png" in data:
        return f'<img src="data:image/png;base64,{"".join(data["image/png"].split())}">'
    return f"```text\n{data['text/plain'].rstrip()}\n```"


def linked(page: Path) -> set[Path]:
    """The files that a page links to, relative to the root."""
    text = re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)
    found = [first or second for first, second in LINK.findall(text)]
    return {Path(os.path.normpath(page.parent / name)) for name in found if name[:5] != "data:"}


def gather(first: Path) -> set[Path]:
    """All files reached from a page, itself included."""
    seen: set[Path] = set()
    left = {first}
    while left:
        page = left.pop()
        seen.add(page)
        if page.suffix in PAGES:
            left |= linked(page) - seen
    return seen


if __name__ == "__main__":
    pages = ROOT / "build" / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    assets = {file.relative_to(ROOT) for file in (ROOT / ASSETS).iterdir()}
    for file in gather(FIRST) | assets:
        place = pages / file
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in PAGES:
            place.with_suffix(".md").write_text(NOTEBOOK.sub(r"\1.md", read(file)), "utf-8")
        else:
            shutil.copyfile(ROOT / file, place)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    sys.exit(subprocess.run(command, cwd=ROOT).returncode)

"""Pages lead somewhere, are led to, and are made of whole tables."""

import json
import re
from itertools import groupby
from pathlib import Path

import pytest
from documentation import PAGES, ROOT

FENCED = re.compile(r"```.*?```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)#?([^)]*)\)")


def links(page: Path) -> list[tuple[Path, str]]:
    """The file and heading of each link."""
    found = LINK.findall(FENCED.sub("", page.read_text("utf-8")))
    return [((page.parent / file).resolve() if file else page, heading) for file, heading in found]


def headings(page: Path) -> set[str]:
    """As links write them: small letters, hyphens for spaces, nothing else."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_tables_have_heads(page: Path) -> None:
    for file, heading in links(page):
        assert file.exists(), file
        assert not heading or heading in headings(file), (file, heading)
    lines = FENCED.sub("", page.read_text("utf-8")).splitlines()
    tables = [
        list(rows) for is_row, rows in groupby(lines, lambda line: line.startswith("|")) if is_row
    ]
    assert all(re.fullmatch(r"[|:\- ]+", rows[1]) for rows in tables)


def test_every_page_is_reached_from_the_index() -> None:
    seen, left = set(), [ROOT / "docs" / "index.md"]
    while left:
        page = left.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            left += [file for file, _ in links(page)]
    assert set(PAGES) <= seen


def test_the_page_on_data_counts_the_pack_as_its_manifest_does() -> None:
    manifest = json.loads(
        (ROOT / "src/skillweave/data/packs/quickstart/manifest.json").read_text("utf-8")
    )
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    written = dict(
        re.findall(r"^\| `pack:(\w+)` \| .* \| ([\d,]+ / [\d,]+ / [\d,]+) \|$", page, re.MULTILINE)
    )
    rows = {Path(name).stem: file["rows"] for name, file in manifest["files"].items()}
    # the page also counts the tables that are made when they are opened
    assert {name: written.get(name) for name in rows} == {
        name: " / ".join(f"{of[split]:,}" for split in ("train", "validation", "test"))
        for name, of in rows.items()
    }


def constant_parts(message: str) -> list[str]:
    """The parts of a message that are the same in every case: without names and numbers. Parts of
    at least three words, or else the longest one."""
    parts = re.split(r"\S*\w\.\w\S*|'[^']*'|\.\.\.|[\d.]+|\{[^}]*\}|[():;,]", message)
    parts = [part.strip() for part in parts]
    return [part for part in parts if len(part.split()) > 2] or [max(parts, key=len)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_errors_that_a_page_explains_exist(page: Path) -> None:
    sources = [file.read_text("utf-8") for file in (ROOT / "src").rglob("*.py")]
    code = re.sub(r"""["']\s*\n\s*f?["']""", "", "\n".join(sources))  # joins adjacent literals
    table = page.read_text("utf-8").partition("## Common errors")[2]
    for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE):
        for message in re.findall("`([^`-][^`]*)`", row):
            assert any(part in code for part in constant_parts(message)), message

"""Pages lead somewhere, are led to, and are made of whole tables."""

import json
import re
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
    assert written == {
        name: " / ".join(f"{of[split]:,}" for split in ("train", "validation", "test"))
        for name, of in rows.items()
    }

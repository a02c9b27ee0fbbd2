"""The site: every page is there and in the navigation, shows what a reader of the repository sees,
its links lead somewhere, and it asks nobody for anything."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from documentation import PAGES, ROOT
from lxml import html
from markdown_it import MarkdownIt

import skillweave as sw

BUILD = ROOT / "build"
SITE = BUILD / "site"
COUNTED = ("li", "ol", "table", "tr", "pre", "h2", "h3", "img", "strong", "em", "code")
LOADED = "//script/@src | //img/@src | //link[not(@rel='canonical')]/@href | //iframe/@src"


@pytest.fixture(scope="module")
def site() -> dict[Path, Any]:
    """The built pages by their file."""
    built = subprocess.run(
        [sys.executable, ROOT / "docs" / "build_site.py"], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return {page: html.parse(str(page)).getroot() for page in SITE.rglob("*.html")}


def built(page: Path) -> Path:
    """Where the site has a page of the repository."""
    name = "index.html" if page.name == "README.md" else f"{page.stem}.html"
    return SITE / page.parent / name


def sources() -> list[Path]:
    """The pages of the site, relative to the root of the repository."""
    return [page.relative_to(BUILD / "pages") for page in (BUILD / "pages").rglob("*.md")]


def named(nav: Any) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from named(part)


def test_every_page_is_in_the_navigation_once(site: dict[Path, Any]) -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    assert sorted(named(nav)) == sorted(map(str, sources()))
    assert {page.relative_to(ROOT) for page in PAGES} <= {*sources()}


def test_links_and_what_pages_load_exist(site: dict[Path, Any]) -> None:
    for page, root in site.items():
        if page.name == "404.html":
            continue
        assert not [url for url in root.xpath(LOADED) if re.match(r"\w+://|//", url)], page
        for url in [*root.xpath(LOADED), *root.xpath("//a/@href")]:
            if url.startswith(("http", "mailto:", "data:")):
                continue
            name, _, anchor = unquote(url).partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.is_file(), (page, url)
            if anchor and file.suffix == ".html":
                assert site[file].xpath("//*[@id=$anchor]", anchor=anchor), (page, url)


def test_pages_show_what_markdown_says(site: dict[Path, Any]) -> None:
    """Zensical reads another Markdown than most: it wants lists indented by four, for instance."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    for page in sources():
        if page.name == "api.md" or page.parent.name == "notebooks":
            continue  # they hold more than Markdown
        text = (BUILD / "pages" / page).read_text("utf-8")
        wanted = html.fromstring(f"<div>{markdown.render(text)}</div>")
        (found,) = site[built(page)].xpath("//article")
        for tag in COUNTED:
            path = f".//{tag}" if tag != "code" else ".//code[not(ancestor::pre)]"
            assert len(found.xpath(path)) == len(wanted.xpath(path)), (page, tag)


def test_the_api_reference_explains_every_public_name(site: dict[Path, Any]) -> None:
    root = site[SITE / "docs" / "api.html"]
    for name in sw.__all__:
        (heading,) = root.xpath("//h3[@id=$name]", name=f"skillweave.{name}")
        shown = " ".join(heading.getparent().text_content().split())
        (first, *_) = (getattr(sw, name).__doc__ or "").replace("`", "").split("\n")
        assert " ".join(first.split()[:4]) in shown, name

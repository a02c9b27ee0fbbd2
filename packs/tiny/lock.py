"""Pin the packages of `lock.json`: their versions, the sha256 of their archives and licences.

Run `python packs/tiny/lock.py --cache DIR KIND ECOSYSTEM NAME...` to fetch packages by name and add
them. What the lock file has is left as it is.
"""

import argparse
import email
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from quickstart.steps.sources import Source, members
from tiny.steps.locked import LOCK

WHEELS = ("--only-binary", ":all:", "--python-version", "311", "--implementation", "cp")
PLATFORMS = ("any", "manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64")


def command(ecosystem: str, name: str, folder: Path) -> list[str]:
    """The package manager's command that fetches the newest archive."""
    if ecosystem == "npm":
        return ["npm", "pack", "--silent", "--pack-destination", str(folder), name]
    if ecosystem == "apt":
        return ["apt-get", "download", name]
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *WHEELS, *platforms]
    return [*pip, "--dest", str(folder), name]


def described(ecosystem: str, archive: Path) -> tuple[str, str]:
    """(version, licence) as the archive states them."""
    if ecosystem == "npm":
        with tarfile.open(archive) as tar:
            stream = tar.extractfile("package/package.json")
            about = json.load(stream) if stream else {}
        return about["version"], str(about.get("license", "not stated"))
    if ecosystem == "apt":
        fields = ["dpkg-deb", "--field", str(archive), "Version"]
        version = subprocess.run(fields, check=True, capture_output=True, text=True).stdout.strip()
        return version, debian_licences(archive)
    with zipfile.ZipFile(archive) as wheel:
        name = next(
            name for name in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)
        )
        about = email.message_from_bytes(wheel.read(name))
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier", [])
        if line.startswith("License ::")
    ]
    stated = str(about.get("License") or "").strip().partition("\n")[0][:60]
    return about["Version"], about.get("License-Expression") or ", ".join(
        classifiers
    ) or stated or "not stated"


def debian_licences(archive: Path) -> str:
    """The licences that a package's copyright file names."""
    texts = [
        content.decode("utf-8", "replace")
        for name, content in members(archive, "usr/share/doc/")
        if name.endswith("/copyright")
    ]
    named = {
        licence.strip()
        for text in texts
        for licence in re.findall(r"^License:\s*([\w.+~ -]{2,40})$", text, re.MULTILINE)
    }
    common = {one for text in texts for one in re.findall(r"common-licenses/([\w.-]*\w)", text)}
    return ", ".join(sorted(named or common)) or "see its copyright file"


def pin(kind: str, ecosystem: str, name: str, cache: Path) -> Source:
    """Fetch the newest version of a package into the cache and describe it."""
    known = {path.name for path in cache.iterdir()}
    subprocess.run(command(ecosystem, name, cache), cwd=cache, check=True, capture_output=True)
    new = [path for path in cache.iterdir() if path.name not in known]
    start = re.sub(r"[-_.]+", "-", name.removeprefix("@").replace("/", "-")).lower()
    found = new or [
        path
        for path in cache.iterdir()
        if re.sub(r"[-_.]+", "-", path.name).lower().startswith(start)
    ]
    archive = max(found, key=lambda path: path.stat().st_mtime)
    return describe(kind, ecosystem, name, archive)


def describe(kind: str, ecosystem: str, name: str, archive: Path) -> Source:
    """The entry of an archive in the lock file."""
    version, licence = described(ecosystem, archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Source(ecosystem, name, version, archive.name, digest, licence, kind)


def write(sources: list[Source]) -> None:
    """Write the lock file, ordered by kind and name."""
    ordered = sorted(sources, key=lambda source: (source.used_for, source.name))
    lines = ",\n".join(json.dumps(asdict(source), ensure_ascii=False) for source in ordered)
    LOCK.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> None:
    """Add packages to the lock file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the fetched archives")
    parser.add_argument("kind", help="what the packages are used for")
    parser.add_argument("ecosystem", choices=("npm", "pip", "apt"))
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    entries = json.loads(LOCK.read_text(encoding="utf-8")) if LOCK.exists() else []
    sources = [Source(**entry) for entry in entries]
    known = {source.name for source in sources}
    for name in arguments.names:
        if name not in known:
            sources.append(pin(arguments.kind, arguments.ecosystem, name, arguments.cache))
            write(sources)
            print(sources[-1])


if __name__ == "__main__":
    main()

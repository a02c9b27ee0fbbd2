"""The wheel installs and works without the source tree; the container file copies what exists."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves files behind; without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    build = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", *build, "--wheel-dir", str(folder), str(source)], check=True
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("skillweave/")}
    package = ROOT / "src" / "skillweave"
    files = {
        file.relative_to(package.parent).as_posix()
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert held == files


def test_the_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = ["pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", *install, str(wheel)], check=True)
    # the wheel's package comes before that of the source tree
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    code = """
import skillweave as sw
from skillweave.recipe import find_recipe
print(sw.__file__)
print(sw.load("skillweave/tiny").count_parameters(), find_recipe("quickstart").is_file())
"""

    def run(*words: str) -> list[str]:
        done = subprocess.run(
            words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    assert run(str(site / "bin" / "skillweave"), "--version") == ["skillweave 0.1.0"]
    place, told = run(sys.executable, "-c", code)
    assert Path(place).is_relative_to(site)
    count, has_recipe = told.split()
    assert 6_000_000 < int(count) < 8_000_000 and has_recipe == "True"


def test_the_container_file_copies_what_exists_and_leaves_root() -> None:
    text = (ROOT / "Containerfile").read_text("utf-8")
    copied = re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
    files = [name for line in copied for name in line.split()[:-1]]
    assert files and all((ROOT / name).exists() for name in files)
    kept = (ROOT / ".containerignore").read_text("utf-8").splitlines()
    assert {f"!{name}" for name in files} <= set(kept)
    last = text.rpartition("FROM")[2]
    assert "USER skillweave" in last
    assert 'ENTRYPOINT ["skillweave"]' in last

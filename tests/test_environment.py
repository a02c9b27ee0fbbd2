"""What `doctor` says of a machine."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from skillweave import cli, environment


def test_every_optional_package_says_what_it_gives(monkeypatch) -> None:
    def version(name: str) -> str:
        if name == "skillweave":
            return "1"
        raise metadata.PackageNotFoundError(name)

    needed = ["a; extra == 'hf'", "b>=2; extra == 'other'", "c; extra == 'dev'"]
    needed += ["skillweave[track]; extra == 'hf'", "d; sys_platform == 'none'"]
    monkeypatch.setattr(environment, "requires", lambda name: needed)
    monkeypatch.setattr(environment, "version", version)
    found = {check.name: check for check in environment._packages()}
    assert found.keys() == {"skillweave", "a", "b"}
    assert found["a"].remedy == f"{environment.EXTRAS['hf']}: pip install 'skillweave[hf]'"
    assert found["b"].remedy == "other: pip install 'skillweave[other]'"


@pytest.mark.parametrize(
    ("found", "extra", "status"),
    [
        ("2.13.0", "", "ok"),
        ("2.12.1", "", "fault"),
        ("2.13.0", "hf", "ok"),
        ("2.15.0", "hf", "warning"),
        (None, "", "fault"),
        (None, "hf", "absent"),
    ],
)
def test_versions_are_compared_with_the_ranges(found, extra, status, monkeypatch) -> None:
    def version(name: str) -> str:
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(environment, "version", version)
    check = environment._package("torch", ">=2.13,<2.15", extra)
    assert check.status == status
    assert bool(check.remedy) == (status != "ok")


def test_a_missing_requirement_gives_the_exit_status_2(monkeypatch, capsys, tmp_path: Path) -> None:
    needed = ["torch>=2.13", "no-such-package>=1", "no-such-extra; extra == 'hf'"]
    monkeypatch.setattr(environment, "requires", lambda name: needed)
    file = tmp_path / "checks.json"
    assert cli.main(["doctor", "--json", str(file)]) == 2
    told = capsys.readouterr()
    assert "✗ no-such-package" in told.out and "– no-such-extra" in told.out
    assert "no-such-package: not installed (pip install no-such-package)" in told.err
    checks = {one["name"]: one for one in json.loads(file.read_text("utf-8"))}
    assert checks["cpu"]["status"] == checks["h264"]["status"] == "ok"


def test_a_token_is_never_shown(monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "token" in shown and "secret" not in shown


def test_a_broken_library_is_a_fault_of_its_own(monkeypatch, tmp_path: Path) -> None:
    def fail():
        raise ImportError("libavcodec.so: no such file")
        yield

    monkeypatch.setattr(environment, "_codecs", fail)
    faults = [check for check in environment.examine(tmp_path) if check.status == "fault"]
    assert [check.group for check in faults] == ["media"]
    assert "libavcodec" in faults[0].found

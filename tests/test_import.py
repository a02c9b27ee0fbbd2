"""`import skillweave` is light, and every public name is there."""

import subprocess
import sys

import pytest

import skillweave

HEAVY = [
    "torch",
    "pydantic",
    "numpy",
    "tokenizers",
    "transformers",
    "lightning_fabric",
    "matplotlib",
    "sklearn",
    "pyarrow",
    "av",
]


def modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_nothing_heavy() -> None:
    assert not modules_after("import skillweave").intersection(HEAVY)


def test_layouts_need_no_torch() -> None:
    found = modules_after("import skillweave as sw; sw.Layout, sw.Batch")
    assert not found.intersection({"torch", "numpy"})


@pytest.mark.parametrize("name", skillweave.__all__)
def test_public_names(name: str) -> None:
    assert getattr(skillweave, name).__name__.split(".")[-1] == name
    assert name in dir(skillweave)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="module 'skillweave' has no attribute 'Modle'"):
        skillweave.Modle  # noqa: B018

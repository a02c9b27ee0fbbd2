"""Registers the toys of this folder for a module of tests, and takes them away afterwards."""

import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from registered import registered_for_now


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    with registered_for_now():
        for file in sorted(Path(__file__).parent.glob("toy_*.py")):
            spec = spec_from_file_location(file.stem, file)
            assert spec and spec.loader
            sys.modules[file.stem] = module = module_from_spec(spec)
            spec.loader.exec_module(module)
        yield

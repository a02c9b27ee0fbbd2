"""Registers the toys of this folder for a module of tests, and takes them away afterwards."""

import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from skillweave.components.targets import TARGETS
from skillweave.config.registry import Registry
from skillweave.config.routes import ROUTES
from skillweave.data.sources import KINDS
from skillweave.metrics import METRICS
from skillweave.tasks import TASKS

REGISTRIES: tuple[Registry, ...] = (TARGETS, TASKS, METRICS, ROUTES, KINDS)


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    before = [dict(registry) for registry in REGISTRIES]
    for file in sorted(Path(__file__).parent.glob("toy_*.py")):
        spec = spec_from_file_location(file.stem, file)
        assert spec and spec.loader
        sys.modules[file.stem] = module = module_from_spec(spec)
        spec.loader.exec_module(module)
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        for name in set(registry) - set(entries):
            del registry[name]

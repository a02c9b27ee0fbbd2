"""Registering classes for the length of a test."""

from collections.abc import Iterator
from contextlib import contextmanager

from skillweave.components.targets import TARGETS
from skillweave.config.registry import Registry, load_plugins
from skillweave.config.routes import ROUTES
from skillweave.data.sources import KINDS
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.metrics import METRICS
from skillweave.model.formats import FORMATS
from skillweave.tasks import TASKS

REGISTRIES: tuple[Registry, ...] = (TARGETS, TASKS, METRICS, ROUTES, KINDS, FORMATS, FAMILIES)


@contextmanager
def registered_for_now() -> Iterator[None]:
    """What is registered within is gone afterwards."""
    load_plugins()
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        for name in set(registry) - set(entries):
            del registry[name]

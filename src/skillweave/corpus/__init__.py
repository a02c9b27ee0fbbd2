"""From raw web data to clean shards: sources, steps, and a pipeline on Daft.

from skillweave import corpus

corpus.clean(corpus.read_config("corpus.yaml"))
"""

from __future__ import annotations

import os

from skillweave.corpus import steps
from skillweave.corpus.config import CleanConfig, ShardsConfig, read_config
from skillweave.corpus.pipeline import Pipeline, clean, dry_run, explain
from skillweave.corpus.sources import SOURCES, CorpusSource
from skillweave.corpus.step import STEPS, CorpusStep, Drop, Row, Step, step

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")  # Daft would tell its makers of each run

__all__ = [
    "SOURCES",
    "STEPS",
    "CleanConfig",
    "CorpusSource",
    "CorpusStep",
    "Drop",
    "Pipeline",
    "Row",
    "ShardsConfig",
    "Step",
    "clean",
    "dry_run",
    "explain",
    "read_config",
    "step",
]
BUILT_IN = steps.BUILT_IN
"""The modules that register the steps of this package."""

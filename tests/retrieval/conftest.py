"""A tiny run, made once for each file."""

from pathlib import Path

import pytest
from tiny_run import make_run

import skillweave as sw


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("search"))


@pytest.fixture
def predictor(run: Path) -> sw.Predictor:
    return sw.Predictor(run)

"""A tiny run, made once for each file."""

from pathlib import Path

import pytest
from tiny_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("inference"))

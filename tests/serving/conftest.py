"""One service for all tests of endpoints: the packaged model, a tiny run, and a GPT-2."""

from collections.abc import Generator
from pathlib import Path

import pytest
from served import save_writer, serving
from tiny_run import make_run

from skillweave.serving.models import Models


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_writer(tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="session")
def service(run: Path, writer: Path) -> Generator[tuple[str, Models]]:
    paths = ["skillweave/tiny", f"run={run}", f"writer={writer}"]
    with serving(paths, max_body_bytes=2**20, max_client_batch_size=50) as found:
        yield found


@pytest.fixture(scope="session")
def url(service: tuple[str, Models]) -> str:
    return service[0]

"""Small corpora for the tests of the pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from skillweave.corpus import CleanConfig

Write = Callable[..., Path]


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Write:
    """Writes rows into a file of JSON lines below the test's folder."""

    def write(name: str, rows: Iterable[Mapping[str, Any] | str], encoding: str = "utf-8") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows]
        file.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
        return file

    return write


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., CleanConfig]:
    """A configuration of sources and steps, with `out` in the test's folder."""

    def make(sources: Mapping[str, Any] | Path, *steps: Mapping[str, Any], **options: Any) -> Any:
        if isinstance(sources, Path):
            sources = {"web": {"kind": "jsonl", "path": str(sources)}}
        data = {"out": str(tmp_path / "out"), "sources": sources, "steps": list(steps), **options}
        return CleanConfig.parse(data)

    return make

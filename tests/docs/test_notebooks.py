"""Notebooks run, and what is stored in them is what they show, without a trace of the machine."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from documentation import ROOT
from run_notebooks import FOLDER, run

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MACHINE = re.compile(r"/(?:tmp|root|home|work|Users|usr|var)/|\.venv|site-packages")


def shown(notebook: Any) -> list[list[tuple[str, ...]]]:
    """The kinds of outputs of each cell: a stream, or forms of a value."""
    return [
        [tuple(sorted(one.get("data", {one.get("name", ""): ""}))) for one in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_shows_what_is_stored(file: Path, tmp_path: Path) -> None:
    stored = nbformat.read(file, as_version=4)
    outputs = [cell.outputs for cell in stored.cells if cell.cell_type == "code"]
    assert not MACHINE.search(json.dumps(outputs))
    assert any(outputs) and shown(run(file, tmp_path)) == shown(stored)


def test_every_notebook_is_listed() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert [file.stem for file in NOTEBOOKS if f"notebooks/{file.name}" not in index] == []

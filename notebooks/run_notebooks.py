"""Run notebooks and store what they show.

python notebooks/run_notebooks.py [NOTEBOOK ...]

Each runs in an empty folder, so that no file of the machine is needed or named.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def run(file: Path, folder: str | Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of its cells, run in a folder. Raises CellExecutionError."""
    notebook = nbformat.read(file, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, resources=place, record_timing=False).execute()
    return notebook


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:] or sorted(FOLDER.glob("*.ipynb"))):
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(file, folder)
        notebook.metadata.language_info = {"name": "python"}  # without the machine's version
        nbformat.write(notebook, file)
        print(file.name)

"""Files of what a search found."""

from pathlib import Path

import pytest

import skillweave as sw
from skillweave.retrieval.files import save_hits, suffix_of
from skillweave.retrieval.stored import open_index


def test_found_files_are_saved_as_they_were(
    run: Path, predictor: sw.Predictor, tmp_path: Path
) -> None:
    index = open_index(predictor, run, "text_to_image", "image")
    hits = index.search(2, text="red square")
    saved = save_hits(index, hits, tmp_path / "found")
    for hit, file in zip(hits, saved, strict=True):
        original = run.parent / "data" / f"{hit.entry.key}.png"
        assert file.read_bytes() == original.read_bytes()
    code = open_index(predictor, run, "text_to_code", "code")
    (file,) = save_hits(code, code.search(1, text="make a red square"), tmp_path)
    assert file.suffix == ".txt" and file.read_text("utf-8").startswith("def make_")


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (b"\x89PNG\r\n", ".png"),
        (b"\0\0\0\x18ftypisom", ".mp4"),
        (b"RIFF1234WAVE", ".wav"),
        (b"what", ""),
    ],
)
def test_suffixes_follow_the_contents(content: bytes, suffix: str) -> None:
    assert suffix_of(content) == suffix

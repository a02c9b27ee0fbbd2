"""Indexes that grow, go on after an interruption, and embed only what has changed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_run import COLOURS

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.retrieval.files import save_hits
from skillweave.retrieval.stored import open_index


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in COLOURS:
        Image.new("RGB", (20, 20), colour).save(folder / f"{colour}.png")
    return folder


@pytest.fixture
def embedded(predictor: sw.Predictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each call of the model encodes."""
    counts: list[int] = []
    encode: Callable[..., Any] = sw.Predictor.encode_examples

    def counted(self: sw.Predictor, layout: Any, examples: list, *more: Any) -> Any:
        if examples:
            counts.append(len(examples))
        return encode(self, layout, examples, *more)

    monkeypatch.setattr(sw.Predictor, "encode_examples", counted)
    return counts


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    from skillweave.retrieval import index

    monkeypatch.setattr(index, "group_size", lambda _: 2)


def in_memory(predictor: sw.Predictor, run: Path, photos: Path, **more: Any) -> sw.Index:
    return open_index(predictor, run, "text_to_image", "image", photos, **more)


def on_disk(predictor: sw.Predictor, run: Path, photos: Path, **more: Any) -> sw.Index:
    return sw.Index.build(predictor, photos, out=photos.parent / "kept", **more)


KINDS = pytest.mark.parametrize("build", [in_memory, on_disk])


@KINDS
def test_what_was_embedded_outlasts_an_interruption(
    build: Callable[..., sw.Index],
    predictor: sw.Predictor,
    run: Path,
    photos: Path,
    embedded: list[int],
    small_groups: None,
) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(predictor, run, photos, progress=interrupt)
    assert sum(embedded) == 4
    index = build(predictor, run, photos)
    assert sum(embedded) == len(COLOURS) == len(index)
    for entry, vector in zip(index.entries, index.vectors, strict=True):
        (alone,) = predictor.encode("text_to_image", image=[photos / entry.key])
        np.testing.assert_allclose(vector, alone, atol=1e-5)


@KINDS
def test_contents_decide_what_is_embedded(
    build: Callable[..., sw.Index],
    predictor: sw.Predictor,
    run: Path,
    photos: Path,
    embedded: list[int],
) -> None:
    build(predictor, run, photos)
    embedded.clear()
    before = os.stat(photos / "red.png")
    (photos / "blue.png").touch()
    build(predictor, run, photos)
    assert not embedded  # written again with the same content
    content = bytearray((photos / "red.png").read_bytes())
    Image.new("RGB", (20, 20), "lime").save(photos / "red.png")
    os.utime(photos / "red.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(content) and os.stat(photos / "red.png").st_mtime_ns == before.st_mtime_ns
    index = build(predictor, run, photos)
    assert embedded == [1]  # another content under the same name, size and time or not
    (hit,) = index.search(1, image=photos / "red.png")
    assert hit.entry.key == "red.png" and hit.score == pytest.approx(1, abs=1e-5)


def test_an_index_grows_by_key(
    predictor: sw.Predictor, run: Path, photos: Path, tmp_path: Path
) -> None:
    index = on_disk(predictor, run, photos)
    assert len(index) == 6
    more = tmp_path / "more"
    more.mkdir()
    Image.new("RGB", (20, 20), "pink").save(more / "pink.png")
    Image.new("RGB", (20, 20), "cyan").save(more / "red.png")
    (more / "broken.png").write_bytes(b"")
    skipped = index.add(more)
    assert [one.key for one in skipped] == ["broken.png"] and len(index) == 7
    again = sw.Index.open(predictor, photos.parent / "kept", "image")
    (hit,) = again.search(1, image=more / "red.png")
    assert (hit.entry.key, hit.entry.path) == ("red.png", str(more / "red.png"))
    assert again.delete("red.png", "absent") == 1 and len(again) == 6
    (file,) = save_hits(again, again.search(1, image=more / "pink.png"), tmp_path / "found")
    assert file.read_bytes() == (more / "pink.png").read_bytes()
    shutil.rmtree(more)
    with pytest.raises(ConfigError, match="its file is not at hand"):
        save_hits(again, [hit], tmp_path / "found")
    with pytest.raises(ConfigError, match="vectors of other weights"):
        sw.Index.open("skillweave/tiny", photos.parent / "kept", "image")


def test_columns_of_a_table_are_conditions(
    predictor: sw.Predictor, run: Path, photos: Path, tmp_path: Path
) -> None:
    table = photos / "table.csv"
    lines = [f"{c}.png,{c} thing,{i},{c[0] == 'r'}" for i, c in enumerate(COLOURS)]
    table.write_text("image,text,number,first\n" + "\n".join(lines) + "\n")
    for index in (
        sw.Index.build(predictor, table),
        sw.Index.build(predictor, table, out=tmp_path / "kept"),
    ):
        hits = index.search(9, where=["number>=4"], text="red thing")
        assert {hit.entry.caption for hit in hits} == {f"{c} thing" for c in COLOURS[4:]}
        hits = index.search(1, where={"number": 2}, text="red thing", words=True)
        assert [hit.entry.caption for hit in hits] == [f"{COLOURS[2]} thing"]
        first = index.search(1, words="grey", image=photos / "grey.png")
        assert first[0].entry.caption == "grey thing"
    with pytest.raises(ConfigError, match="words: there is no text"):
        index.search(words=True, image=photos / "red.png")

"""Pictures: what can be decoded, size, entropy, duplicates; pairs from pages."""

from __future__ import annotations

import base64
import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from corpus_files import PAGE, encoded, photo, warc
from corpus_rows import dropped_rows, shard_rows
from PIL import Image

from skillweave.corpus import Drop, clean
from skillweave.corpus.step import STEPS
from skillweave.corpus.steps.pictures import grey_entropy
from skillweave.data.sources import open_table


def png_that_states(width: int, height: int) -> bytes:
    """A PNG of one row of pixels that claims to be larger."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_picture() -> None:
    step = STEPS["picture"](required=True)
    data = encoded(photo(1))
    assert step.change({"image": data}) == {"width": 120, "height": 90, "format": "png"}
    assert (
        encoded(photo(1), "JPEG")
        and step.change({"image": encoded(photo(1), "JPEG")})["format"] == "jpeg"
    )
    for broken in (b"", b"no picture", data[: len(data) // 2], data[:8] + b"x" * 50):
        assert step.change({"image": broken}).reason == "cannot be decoded"
    assert step.change({"image": png_that_states(3000, 3000)}).reason == "cannot be decoded"
    assert step.change({"image": png_that_states(30000, 30000)}).reason == "states too many pixels"
    assert step.run([{"image": None}]) == [Drop("no picture")]
    assert STEPS["picture"]().run([{"image": None}]) == [None]


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [(100, 50, None), (99, 50, "under 5000 pixels"), (300, 100, None), (301, 100, "too narrow"), (50, 400, "too narrow")],
)  # fmt: skip
def test_picture_size(width: int, height: int, reason: str | None) -> None:
    found = STEPS["picture_size"]().change({"width": width, "height": height})
    assert (found and found.reason) == reason


def test_entropy_by_hand() -> None:
    halves = Image.new("L", (8, 8))
    halves.paste(255, (0, 0, 8, 4))
    assert grey_entropy(encoded(halves)) == pytest.approx(1.0)
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert grey_entropy(encoded(ramp)) == pytest.approx(math.log2(256))
    assert grey_entropy(b"no") is None
    step = STEPS["picture_entropy"]()
    assert step.change({"image": encoded(halves)}).reason == "under 3 bits a pixel"
    assert step.change({"image": encoded(photo(2))})["entropy"] > 5


def test_perceptual_duplicates() -> None:
    step = STEPS["picture_duplicates"]()
    originals = [photo(seed) for seed in range(12)]
    copies = [
        encoded(picture.resize((80, 60)), "JPEG", quality=70) if i % 2 else encoded(picture, "WEBP")
        for i, picture in enumerate(originals)
    ]
    rows = [{"image": encoded(picture)} for picture in originals]
    keys = step.keys([*rows, *({"image": copy} for copy in copies)])
    same = [(keys[i] == keys[12 + i]).any() for i in range(12)]
    assert np.mean(same) > 0.9
    assert not any((keys[i] == keys[j]).any() for i in range(12) for j in range(24) if j % 12 != i)
    assert (step.keys([{"image": b"a"}, {"image": b"b"}])[0] != keys[0]).all()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "pictures").mkdir(parents=True)
    for number, name in enumerate(("logo.png", "pictures/a b.png", "c.png", "d.png")):
        (folder / name).write_bytes(encoded(photo(number)))
    (tmp_path / "secret.png").write_bytes(encoded(photo(9)))
    inline = base64.b64encode(encoded(photo(7, (16, 16)))).decode()
    (folder / "page.html").write_text(PAGE.replace("{inline}", inline))
    return folder


def test_pairs_of_a_page(site: Path, configure) -> None:
    source = {"kind": "pages", "path": f"{site}/*.html"}
    config = configure(
        {"web": source}, {"kind": "pairs"}, {"kind": "picture"}, {"kind": "picture_size"}
    )
    report = clean(config, processes=1)
    found = {row["image_path"]: row for row in shard_rows(config)}
    assert {path: row["text"] for path, row in found.items()} == {
        "pictures/a%20b.png": "A boat on the river",
        "c.png": "Another paragraph stands here and is long enough.",
        "d.png": "A bridge in the evening",
    }
    assert found["d.png"]["image"] == (site / "d.png").read_bytes()
    reasons = {
        (row["step"], row["reason"], row["detail"].partition(":")[0])
        for row in dropped_rows(config)
    }
    assert reasons == {
        ("pairs", "picture not at hand", "http"),
        ("pairs", "picture not at hand", "../secret.png"),
        ("picture_size", "under 5000 pixels", "16 × 16"),
    }
    assert report["rows"] == {"read": 1, "made": 5, "dropped": 3, "kept": 3}
    assert report["sources"]["web"]["pictures"] == 3
    sizes = [len(row["image"]) for row in found.values()]
    assert report["sources"]["web"]["picture_bytes"] == sum(sizes)


@pytest.mark.parametrize("packed", [True, False])
def test_pairs_of_a_web_archive(tmp_path: Path, configure, packed: bool) -> None:
    """Pictures before and after their page, with other schemes, and what is not in the archive."""
    page = (
        b'<p>text</p><img src="/a.png" alt="the first picture">'
        b'<img src="https://cdn.net/b.png#x" alt="the second picture">'
        b'<img src="gone.png" alt="a picture that is gone">'
        b'<img src="none.png" alt="a picture of no archive">'
    )
    pictures = [encoded(photo(number)) for number in range(3)]
    png = {"Content-Type": "image/png"}
    data = warc(
        ("http://site.org/a.png", dict(png), pictures[0]),
        ("http://site.org/deep/page.html", {"Content-Type": "text/html"}, page),
        ("http://cdn.net/b.png", dict(png), pictures[1]),
        ("http://site.org/deep/gone.png", {**png, "status": "404 Not Found"}, pictures[2]),
    )
    file = tmp_path / "a.warc"
    file.write_bytes(data if packed else gzip.decompress(data))
    config = configure({"web": {"kind": "warc", "path": str(file)}}, {"kind": "pairs"})
    clean(config, processes=1)
    found = [(row["text"], row["image"]) for row in shard_rows(config)]
    assert found == [("the first picture", pictures[0]), ("the second picture", pictures[1])]
    details = [row["detail"] for row in dropped_rows(config) if row["step"] == "pairs"]
    assert details == [f"{name}.png: not in the archive of the page" for name in ("gone", "none")]


def test_pairs_become_shards_of_webdataset(site: Path, configure) -> None:
    source = {"kind": "pages", "path": f"{site}/*.html"}
    steps = (
        {"kind": "pairs"},
        {"kind": "picture"},
        {"kind": "picture_size"},
        {"kind": "picture_duplicates"},
    )
    config = configure({"web": source}, *steps, shards={"format": "webdataset"})
    clean(config, processes=1)
    shard = Path(config.out, "shards", "part-00000.tar")
    table = open_table(str(shard))
    row = table.read(0, ["image", "text", "width"])
    assert row["text"] == "A boat on the river" and row["width"] == 120
    assert row["image"]["bytes"] == (site / "pictures" / "a b.png").read_bytes()
    again = configure({"web": {"kind": "webdataset", "path": str(shard)}}, {"kind": "picture"})
    again = again.model_copy(update={"out": f"{config.out}-again"})
    assert clean(again, processes=1)["sources"]["web"]["pictures"] == 3


def test_pictures_of_a_page_without_text(tmp_path: Path) -> None:
    step = STEPS["pairs"](distance=0)
    row = {"html": "<p>A text that is long enough.</p><p>x</p><p>y</p><img src='a.png'>"}
    (found,) = step.change(row | {"file": "f", "page": "f", "id": "1"})
    assert found.reason == "no text near the picture"
    assert step.change({**row, "html": "<p>text only</p>"}).reason == "no pictures in the page"
    long = STEPS["pairs"](most_characters=30)._cut(
        "One sentence. Another, longer sentence follows."
    )
    assert long == "One sentence."

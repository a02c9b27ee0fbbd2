"""The vendored quickstart pack is what its manifest says, decodes, and leaks no group between
splits."""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

PACK = Path(__file__).parents[2] / "src" / "skillweave" / "data" / "packs" / "quickstart"
MANIFEST: dict[str, Any] = json.loads((PACK / "manifest.json").read_text(encoding="utf-8"))
SPLITS = {"train", "validation", "test"}
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXT, TEXTS = pa.string(), pa.list_(pa.string())
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "emoji.parquet": {
        "image": MEDIA,
        "caption_zh": TEXT,
        "caption_en": TEXT,
        "name_zh": TEXT,
        "name_en": TEXT,
        "keywords_zh": TEXTS,
        "keywords_en": TEXTS,
        "category": TEXT,
    },
    "clips.parquet": {
        "video": MEDIA,
        "caption_zh": TEXT,
        "caption_en": TEXT,
        "motion": TEXT,
        "emoji_key": TEXT,
        "name_zh": TEXT,
        "name_en": TEXT,
    },
    "speech.parquet": {"sound": MEDIA, "transcript": TEXT, "base": TEXT, "seconds": pa.float32()},
    "code_zh.parquet": {"text": TEXT, "code": TEXT, "module": TEXT},
    "poems.parquet": {"text": TEXT, "title": TEXT, "author": TEXT, "dynasty": TEXT},
}
LEAST_TEST_ROWS = {"emoji.parquet": 250, "clips.parquet": 500, "speech.parquet": 150}
every_file = pytest.mark.parametrize("name", sorted(COLUMNS))


def read(name: str, *columns: str) -> pa.Table:
    """Read columns of one of the pack's files."""
    return pq.read_table(PACK / name, columns=list(columns) or None)


def sample(name: str, column: str, step: int) -> list[dict[str, Any]]:
    """Take every step-th value of a media column."""
    return read(name, column).column(column).to_pylist()[::step]


def test_manifest_names_every_file_and_stays_small() -> None:
    assert set(MANIFEST["files"]) == set(COLUMNS)
    assert {path.name for path in PACK.glob("*.parquet")} == set(COLUMNS)
    sizes = {path.name: path.stat().st_size for path in PACK.iterdir()}
    assert sum(sizes.values()) <= 20_000_000
    assert MANIFEST["bytes"] == sum(sizes[name] for name in COLUMNS)
    for source in MANIFEST["sources"]:
        assert source["name"] and source["version"] and source["licence"]
        assert re.fullmatch(r"[0-9a-f]{64}", source["sha256"])


@every_file
def test_file_agrees_with_manifest(name: str) -> None:
    entry = MANIFEST["files"][name]
    content = (PACK / name).read_bytes()
    assert entry["bytes"] == len(content)
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    splits = read(name, "split").column("split").to_pylist()
    assert set(splits) == SPLITS
    counts = {split: splits.count(split) for split in SPLITS}
    assert entry["rows"] == {**counts, "all": len(splits)}
    assert counts["test"] >= LEAST_TEST_ROWS.get(name, 100)


@every_file
def test_schema_keys_and_groups(name: str) -> None:
    schema = pq.read_schema(PACK / name)
    leading = {"key": TEXT, "group": TEXT, "split": TEXT}
    assert {field.name: field.type for field in schema} == {**leading, **COLUMNS[name]}
    rows = read(name, "key", "group", "split").to_pylist()
    assert len({row["key"] for row in rows}) == len(rows)
    pairs = {(row["group"], row["split"]) for row in rows}
    assert len(pairs) == len({group for group, _ in pairs})
    assert len({group for group, _ in pairs}) == MANIFEST["files"][name]["groups"]
    for column, kind in COLUMNS[name].items():
        if kind == TEXT and column != "title":
            assert all(read(name, column)[column].to_pylist()), column


def test_same_picture_is_never_in_two_splits() -> None:
    rows = read("emoji.parquet", "image", "split").to_pylist()
    pairs = {(row["image"]["bytes"], row["split"]) for row in rows}
    assert len(pairs) == len({picture for picture, _ in pairs})


def test_clips_share_the_splits_of_the_emoji() -> None:
    emoji = {row["key"]: row for row in read("emoji.parquet", "key", "group", "split").to_pylist()}
    clips = read("clips.parquet", "emoji_key", "group", "split", "motion").to_pylist()
    assert {clip["emoji_key"] for clip in clips} == set(emoji)
    for clip in clips:
        source = emoji[clip["emoji_key"]]
        assert (clip["group"], clip["split"]) == (source["group"], source["split"])
    for split in SPLITS:
        motions = [clip["motion"] for clip in clips if clip["split"] == split]
        counts = [
            motions.count(motion) for motion in ("left", "right", "up", "down", "grow", "spin")
        ]
        assert sum(counts) == len(motions)
        assert min(counts) > 0.85 * max(counts)


def test_variants_share_a_group() -> None:
    groups = {
        row["name_en"]: row["group"]
        for row in read("emoji.parquet", "name_en", "group").to_pylist()
    }
    same = (
        ("man health worker", "woman health worker", "health worker"),
        ("man running: facing right", "woman running", "person running"),
        ("man: blond hair", "woman: red hair", "old man"),
        ("prince", "princess", "person with crown"),
        ("Santa Claus", "Mrs. Claus", "Mx Claus"),
        ("flag: Norway", "flag: Bouvet Island"),
    )
    for names in same:
        assert len({groups[name] for name in names}) == 1, names
    assert groups["flag: China"] != groups["flag: Japan"]
    assert groups["red heart"] != groups["blue heart"]
    assert groups["dog face"] != groups["dog"]


def test_transcripts_have_one_notation() -> None:
    rows = read("speech.parquet", "transcript", "group", "base", "seconds").to_pylist()
    for row in rows:
        assert re.fullmatch(r"[\u3105-\u3129]{1,3}[1-5]", row["transcript"])
        assert row["transcript"] == row["group"]
        assert row["transcript"][:-1] == row["base"]
        assert 0.15 < row["seconds"] < 0.6


def test_pictures_decode() -> None:
    for picture in sample("emoji.parquet", "image", 40):
        image = Image.open(io.BytesIO(picture["bytes"]))
        assert (image.size, image.format) == ((64, 64), "PNG")
        assert np.asarray(image.convert("RGBA"))[..., 3].max() > 0


def test_sounds_decode() -> None:
    for sound in sample("speech.parquet", "sound", 40):
        samples, rate = soundfile.read(io.BytesIO(sound["bytes"]))
        assert rate == 44_100
        assert samples.ndim == 1
        assert np.sqrt(np.mean(samples**2)) > 0.01


def test_clips_decode_and_move() -> None:
    for clip in sample("clips.parquet", "video", 100):
        with av.open(io.BytesIO(clip["bytes"]), "r") as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 8
        assert frames[0].shape == (64, 64, 3)
        change = np.abs(frames[0].astype(float) - frames[-1].astype(float)).mean()
        assert change > 1


def test_code_parses_without_its_docstring() -> None:
    for row in read("code_zh.parquet", "text", "code").slice(0, 200).to_pylist():
        compile(row["code"], "pair", "exec")
        assert len(re.findall(r"[\u4e00-\u9fff]", row["text"])) >= 4
        assert "http" not in row["text"]
        assert row["text"] not in row["code"].partition("\n")[2][:200]

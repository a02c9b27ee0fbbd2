"""Small data for the commands of the documentation, under the names that the pages use, and small
versions of the packaged recipes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import yaml
from PIL import Image

from skillweave.config.layering import load_yaml, merge
from skillweave.recipe import find_recipe

COUNT = 40
"""Media of each kind: enough for all splits."""
TEXTS = 100
"""Texts; their splits depend on other keys."""
COLOURS = ("red", "green", "blue", "white", "maroon")
RECIPES = (
    "quickstart",
    "scratch",
    "moe",
    "unified",
    "unseen",
    "text/named_entities",
    "text/sentence_embedding",
)
"""The packaged recipes that pages train."""
SMALL_MODEL: dict[str, Any] = {
    "width": 16,
    "encoder": {"layers": 3, "heads": 2, "feed_forward": 32},
    "streams": {
        "text": {"vocabulary": 300},
        "code": {"vocabulary": 300},
        "image": {"size": 16},
        "sound": {"channels": 8},
        "video": {"size": 16, "tubelet": [3, 8, 8]},
    },
}
FUNCTIONS = {
    "path": "functions.jsonl",
    "columns": {"text": "docstring", "code": "function"},
    "group": "repository",
}


def make_data(folder: Path) -> None:
    """Write all files."""
    _make_images(folder)
    _make_texts(folder)
    _make_sounds(folder / "recordings")
    _make_clips(folder / "clips")
    _make_hugging_face_models(folder / "downloads")
    for name in RECIPES:
        _make_small_recipe(folder / name, name)


def _caption(i: int) -> str:
    return f"{COLOURS[i % len(COLOURS)]} square number {i}"


def _make_images(folder: Path) -> None:
    rows = []
    for i in range(COUNT):
        image = Image.new("RGB", (40, 32), COLOURS[i % len(COLOURS)])
        image.putpixel((i % 40, i % 32), (i, 255 - i, 7 * i % 256))
        name = f"{i:04d}.jpg"
        for place in ("photos", "holiday", "drawings", f"products/{'chair' if i % 2 else 'lamp'}"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            image.save(folder / place / name)
        (folder / "photos" / f"{i:04d}.txt").write_text(f"{_caption(i)}\n", "utf-8")
        captions = {"caption": _caption(i), "caption_zh": f"方块{i}"}
        rows.append({"image": f"photos/{name}", **captions, "album": f"album {i}"})
    write_lines(folder / "captions.jsonl", rows)
    asked = {"question": "这是什么颜色？", "type": "colour"}
    questions = [
        {"image": row["image"], **asked, "answer": COLOURS[i % len(COLOURS)]}
        for i, row in enumerate(rows)
    ]
    write_lines(folder / "questions.jsonl", questions)
    write_lines(folder / "photos.jsonl", [{"image": row["image"]} for row in rows[:3]])
    for name in ("photo.png", "holiday.jpg", "a.jpg", "b.jpg"):
        Image.new("RGB", (32, 32), "red").save(folder / name)


def _make_texts(folder: Path) -> None:
    labels = ["positive" if i % 2 else "negative" for i in range(TEXTS)]
    texts = [f"{'very good' if i % 2 else 'so bad'}, item {i}" for i in range(TEXTS)]
    write_lines(
        folder / "reviews.jsonl",
        [{"text": t, "label": label} for t, label in zip(texts, labels, strict=True)],
    )
    rows = [(t, label, f"u{i}") for i, (t, label) in enumerate(zip(texts, labels, strict=True))]
    _write_csv(folder / "reviews.csv", [("review", "stars", "user"), *rows])
    write_lines(folder / "texts.jsonl", [{"text": text} for text in texts])
    write_lines(folder / "corpus.jsonl", [{"text": text} for text in texts])
    write_lines(folder / "news.jsonl", [{"text": ["北", "京", "很", "大"]}])
    for name in ("corpus.txt", "sentences.txt"):
        (folder / name).write_text("\n".join(texts), "utf-8")
    write_lines(
        folder / "functions.jsonl",
        [
            {
                "docstring": f"Return {i} times the argument.",
                "function": f"def times_{i}(x):\n    return {i} * x",
                "repository": f"r{i}",
            }
            for i in range(COUNT)
        ],
    )
    (folder / "example.py").write_text("def larger(a, b):\n    return max(a, b)\n", "utf-8")


def _make_sounds(folder: Path) -> None:
    folder.mkdir()
    rows = [("file_name", "transcript", "speaker")]
    for i in range(COUNT):
        name = f"{i:03d}.{'mp3' if i == 2 else 'wav'}"
        wave = np.sin(np.arange(12_000) * (i + 1) / 50)
        soundfile.write(folder / name, wave.astype("float32"), 16_000)
        rows.append((name, "你好" if i % 2 else "再见", f"s{i:02d}"))
    _write_csv(folder / "metadata.csv", rows)


def _make_clips(folder: Path) -> None:
    folder.mkdir()
    rows = []
    for i in range(COUNT):
        name = f"{i:03d}.mp4"
        with av.open(folder / name, "w") as container:
            stream = container.add_stream("h264", rate=6)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            for shade in range(6):
                image = Image.new("RGB", (32, 32), (40 * shade, 6 * i, 0))
                container.mux(stream.encode(av.VideoFrame.from_image(image)))
            container.mux(stream.encode())
        rows.append({"file_name": name, "text": f"{_caption(i)} moves", "source": f"tape-{i}"})
    write_lines(folder / "metadata.jsonl", rows)


def _make_hugging_face_models(folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "very", "good", "so", "bad", "item"]
    pieces = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = {f"{w[1:-1].lower()}_token": w for w in words[:5]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, **names)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(words),
        intermediate_size=32,
        max_position_embeddings=128,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
        **sizes,
    )
    for name, kind in (("bert", BertForMaskedLM), ("classifier", BertForSequenceClassification)):
        kind(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def shrink(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe with the sizes of `SMALL_MODEL`, in those parts that it has."""
    model = recipe.get("model") or {}
    small = {**SMALL_MODEL, "streams": _shared_keys(SMALL_MODEL["streams"], model.get("streams"))}
    return {**recipe, "model": merge(model, _shared_keys(small, model))} if model else recipe


def _shared_keys(some: Mapping[str, Any], others: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in some.items() if key in (others or {})}


def _make_small_recipe(file: Path, name: str) -> None:
    """A recipe that `skillweave train NAME` finds instead of the packaged one: a file in the
    current folder has precedence."""
    recipe = shrink(load_yaml(find_recipe(name)))
    if name == "quickstart":  # from a small model, not the packaged one
        recipe = {**shrink(load_yaml(find_recipe("scratch"))), "name": name}
    for task, settings in recipe["tasks"].items():
        settings["batch_size"] = 4
        settings["data"]["limit"] = 300 if task == "text_classification" else 8
        if task == "text_to_code":
            settings["data"] = FUNCTIONS
    recipe["training"] |= {"threads": 1, "validate_every": 0, "checkpoint_every": 0}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False), "utf-8")


def write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _write_csv(file: Path, rows: Sequence[Sequence[str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)

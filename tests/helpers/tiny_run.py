"""A run folder with a tiny untrained model of five modalities over a handful of made files."""

import io
import json
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
import yaml
from PIL import Image

from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig, merge
from skillweave.tasks.resolve import resolve

CAPTIONS = [
    "red square",
    "green square",
    "blue square",
    "grey square",
    "red square",
    "white square",
]
COLOURS = ["red", "green", "blue", "grey", "maroon", "white"]
SPLITS = ["train"] * 6 + ["validation"] * 6 + ["test"] * 6
TEXTS = ["so good", "so bad", "very good", "very bad", "good good", "bad bad"]

MODEL = {
    "width": 16,
    "shared": ["word"],
    "streams": {
        "text": {"vocabulary": 80, "max_length": 16, "tokenizer": {"min_frequency": 1}},
        "code": {"vocabulary": 80, "max_length": 32, "tokenizer": {"min_frequency": 1}},
        "image": {"size": 16, "patch": 8},
        "sound": {"channels": 8, "max_length": 60},
        "video": {"size": 16, "frames": 3, "tubelet": [3, 8, 8]},
    },
    "encoder": {
        "layers": 1,
        "heads": 2,
        "feed_forward": 32,
        "norm_position": "pre",
        "sparse": {"qkv": {"route": "skill"}},
    },
}


def make_run(folder: Path, **sparse: dict) -> Path:
    """Write data, recipe and an untrained model; the run folder. `sparse`: further sparse
    sites."""
    data = folder / "data"
    data.mkdir(parents=True)
    kinds = {"text_classification": _text, "speech_recognition": _sound, "text_to_image": _image}
    kinds |= {"text_to_video": _video, "text_to_code": _code}
    for name, row in kinds.items():
        rows = [
            {"key": f"{s}-{i % 6}", "group": f"{s}{i}", "split": s, **row(data, s, i % 6)}
            for i, s in enumerate(SPLITS)
        ]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    tasks = {
        name: {"data": {"path": str(data / f"{name}.jsonl")}, "batch_size": 4} for name in kinds
    }
    tasks["text_to_code"]["pool"] = 4
    output = folder / "run"
    described = {
        "name": "tiny",
        "output": str(output),
        "model": MODEL,
        "tasks": tasks,
        "training": {"steps": 1, "threads": 1},
    }
    described = merge(described, {"model": {"encoder": {"sparse": sparse}}})
    return save_run(described)


def save_run(described: dict) -> Path:
    """Resolve a recipe and write it with an untrained model into its output; the run folder."""
    run = resolve(RecipeConfig.parse(described))
    torch.manual_seed(0)
    Model(run.model, run.assets).save_pretrained(run.recipe.folder / "best")
    text = yaml.safe_dump(run.recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    (run.recipe.folder / "recipe.yaml").write_text(text, "utf-8")
    return run.recipe.folder


def add_journal(run: Path) -> None:
    """What training would have left beside the model."""
    (run / "environment.json").write_text(
        json.dumps({"started": "2026-01-02T03:04:05+00:00", "cores": 2, "threads": 1})
    )
    lines = [
        {
            "step": step,
            "kind": "validation",
            "task": "text_to_image",
            "loss": 1.0,
            "metric": {"recall_at_10": step / 100},
        }
        for step in (10, 20)
    ]
    lines[0] |= {"seconds": 30.2}
    lines[1] |= {"seconds": 65.4}
    lines.append({"step": 0, "kind": "data", "samples": {"text_to_image": 1234}})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "skipped.jsonl").write_text(
        json.dumps({"step": 3, "task": "text_to_image", "key": "<b>", "reason": "0 bytes"}) + "\n"
    )


def _text(data: Path, split: str, i: int) -> dict:
    return {"text": TEXTS[i], "label": "negative" if "bad" in TEXTS[i] else "positive"}


def _image(data: Path, split: str, i: int) -> dict:
    file = data / f"{split}-{i}.png"
    Image.new("RGB", (20, 20), COLOURS[i]).save(file)
    return {"image": str(file), "text": CAPTIONS[i]}


def _code(data: Path, split: str, i: int) -> dict:
    return {
        "code": f"def make_{COLOURS[i]}_square(side):\n    return {i}",
        "text": f"make a {COLOURS[i]} square",
    }


def _sound(data: Path, split: str, i: int) -> dict:
    file = data / f"{split}-{i}.wav"
    soundfile.write(file, np.sin(np.arange(8000) * (i + 1) / 50).astype("float32"), 16_000)
    return {"sound": str(file), "transcript": ["ab", "ba", "aab", "b", "a", "abb"][i]}


def _video(data: Path, split: str, i: int) -> dict:
    file = data / f"{split}-{i}.mp4"
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=6)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for shade in range(6):
            frame = av.VideoFrame.from_image(Image.new("RGB", (32, 32), (40 * shade, 20 * i, 0)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.write_bytes(out.getvalue())
    return {"video": str(file), "text": f"{COLOURS[i]} moves"}

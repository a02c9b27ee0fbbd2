"""The largest batches of a recipe, without its data: made-up samples of the greatest length.

The samples are written as files and read as any data are, so that tokenizers, processors, tasks and
padding do what they do in training.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skillweave.batch import Batch, Modality
from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.data.processors.base import NO_AUGMENT
from skillweave.model.config import ModelConfig
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.multiple_choice import BLANK
from skillweave.tasks.resolve import ResolvedRecipe, recipe_entry, resolve

ROWS = 4
"""Made-up samples of a task. A batch repeats them."""
HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 400)]
"""Characters of made-up texts: at least one token each."""
SENTENCE = 12
"""Characters of a sentence in them."""


class LargestBatches:
    """Batches of a recipe's tasks in which every sample has the greatest length that its model
    reads.

    `recipe`: resolved, with the vocabularies that the recipe gives. Raises ConfigError for a task
    of which no sample can be made up.
    """

    def __init__(self, recipe: RecipeConfig) -> None:
        with tempfile.TemporaryDirectory(prefix="skillweave-plan-") as folder:
            ready = _resolve(recipe, Path(folder))
            self.recipe = _with_vocabularies(ready, recipe.model)
            self.datasets: dict[str, TaskDataset] = {}
            self.examples: dict[str, list[Any]] = {}
            for name in ready.tasks:
                dataset = ready.dataset(name, "train", training=True)
                rng = np.random.default_rng(0)
                self.datasets[name] = dataset
                try:
                    found = [dataset.example(row, rng) for row in range(len(dataset))]
                except Exception as error:
                    raise ConfigError(
                        f"tasks.{name}: a sample for the plan cannot be made up: {error}"
                    ) from error
                self.examples[name] = found

    def batch(self, task: str, samples: int) -> Batch:
        """A batch of so many samples of a task."""
        found = self.examples[task]
        chosen = [found[i % len(found)] for i in range(samples)]
        return self.datasets[task].collate(chosen, (), np.random.default_rng(0))


def _resolve(recipe: RecipeConfig, folder: Path) -> ResolvedRecipe:
    """The recipe with made-up data, resolved."""
    model, changes = recipe.model, {}
    for modality in (Modality.TEXT, Modality.CODE):
        stream = getattr(model.streams, modality.value)
        if stream is not None:
            trained = TrainedTokenizerConfig(min_frequency=1)
            changes[modality.value] = stream.model_copy(update={"tokenizer": trained})
    if changes:
        model = model.model_copy(update={"streams": model.streams.model_copy(update=changes)})
    tasks = {}
    for name, config in recipe.tasks.items():
        rows = list(_rows(recipe, name, folder))
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        data = DataConfig(path={"train": str(file)})
        changed = {"data": data, "batch_by": None, "augment": NO_AUGMENT}
        tasks[name] = config.model_copy(update=changed)
    made = recipe.model_copy(update={"model": model, "tasks": tasks})
    return resolve(made)


def _with_vocabularies(ready: ResolvedRecipe, given: ModelConfig) -> ResolvedRecipe:
    """The resolved recipe whose streams have as many tokens as the recipe gives."""
    streams = {
        name: stream.model_copy(update={"vocabulary": getattr(given.streams, name).vocabulary})
        for name in ("text", "code")
        if (stream := getattr(ready.model.streams, name)) is not None
    }
    changes: dict[str, Any] = {"streams": ready.model.streams.model_copy(update=streams)}
    if ready.model.target_embedding is not None and given.target_embedding is not None:
        own = ready.model.target_embedding
        size = streams["text"].vocabulary if own.tied else given.target_embedding.vocabulary
        changes["target_embedding"] = own.model_copy(update={"vocabulary": size})
    model = ready.model.changed(**changes)
    recipe = ready.recipe.model_copy(update={"model": model})
    tasks = {name: replace(task, model=model) for name, task in ready.tasks.items()}
    return ResolvedRecipe(recipe, ready.assets, tasks)


def _rows(recipe: RecipeConfig, name: str, folder: Path) -> Iterator[Mapping[str, Any]]:
    """Made-up rows of a task, with every field that a task may want."""
    entry, streams = recipe_entry(recipe, name), recipe.model.streams
    config, rng = recipe.tasks[name], np.random.default_rng(0)
    texts = [s.max_length for s in (streams.text, recipe.model.target_embedding) if s is not None]
    longest = 2 * max(texts, default=16)
    media = {
        modality.value: _FILES[modality](folder / f"{name}-{modality.value}", stream)
        for modality, stream in streams.present().items()
        if modality in _FILES and modality.value in entry.fields
    }
    classes = _classes(recipe, name)
    count = config.choices or getattr(entry, "choices", 4)
    for i in range(ROWS):
        text = _text(longest, rng)
        label = classes[i % len(classes)]
        words = text.replace("。", "")
        if "candidates" in entry.fields:
            text = f"{BLANK}{text}"
        choices = [_text(longest, rng) for _ in range(count)]
        candidates = [_text(4, rng) for _ in range(count)]
        row = {
            "key": str(i),
            "text": list(words) if "tags" in entry.fields else text,
            "second": _text(longest, rng),
            "question": _text(longest, rng),
            "code": " ".join(_text(2 * (streams.code.max_length if streams.code else 8), rng)),
            "answer": _text(longest, rng),
            "answers": [text[2:6]],
            "choices": choices,
            "candidates": candidates,
            "transcript": _transcript(recipe, rng),
            "tags": [f"tag{k % 5}" for k in range(len(words))],
            "labels": [label],
            "score": float(i % 5),
            "vector": [float(x) for x in rng.normal(size=recipe.model.width)],
            **media,
        }
        asked = {"label": 0 if {"choices", "candidates"} & {*entry.fields} else label}
        wanted = {"key", "text", "second", "question", *entry.fields}
        yield {key: value for key, value in {**row, **asked}.items() if key in wanted}


def _classes(recipe: RecipeConfig, name: str) -> list[str]:
    config = recipe.tasks[name]
    target = recipe.model.targets.get(config.target or "")
    found = [*config.classes] or [*getattr(target, "classes", [])]
    if not found:
        found = [c for t in recipe.model.targets.values() for c in getattr(t, "classes", [])]
    return found or ["class 0", "class 1"]


def _text(length: int, rng: np.random.Generator) -> str:
    drawn = rng.choice(HAN, length)
    return "".join(c if i % SENTENCE else c + "。" for i, c in enumerate(drawn, 1))


def _transcript(recipe: RecipeConfig, rng: np.random.Generator) -> str:
    """A transcript of a quarter of the recording's positions, of the target's characters."""
    sound = recipe.model.streams.sound
    length = sound.max_length // 4 if sound is not None else 8
    found = [c for t in recipe.model.targets.values() for c in getattr(t, "characters", [])]
    return "".join(rng.choice(found or HAN[:40], max(1, length)))


def _image(path: Path, stream: Any) -> str:
    from PIL import Image

    file = path.with_suffix(".png")
    Image.effect_noise((stream.size, stream.size), 50).convert("RGB").save(file)
    return str(file)


def _sound(path: Path, stream: Any) -> str:
    import soundfile

    file, rng = path.with_suffix(".wav"), np.random.default_rng(0)
    seconds = stream.samples(stream.max_length) / 16_000
    count = math.ceil(16_000 * seconds)
    soundfile.write(file, rng.uniform(-0.5, 0.5, count).astype("float32"), 16_000)
    return str(file)


def _video(path: Path, stream: Any) -> str:
    import av

    file, rng = path.with_suffix(".mp4"), np.random.default_rng(0)
    side = max(16, stream.size // 2 * 2)
    with av.open(str(file), "w") as container:
        out = container.add_stream("h264", rate=max(1, round(stream.frames_per_second)))
        out.width = out.height = side
        out.pix_fmt = "yuv420p"
        for _ in range(2 * stream.frames):
            pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
            container.mux(out.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(out.encode())
    return str(file)


_FILES = {Modality.IMAGE: _image, Modality.SOUND: _sound, Modality.VIDEO: _video}
"""Modality → what writes a file of the largest size that its stream reads."""

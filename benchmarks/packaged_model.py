"""Size, loading time, speed and memory of a packaged model, on one thread.

python benchmarks/packaged_model.py [MODEL] [--items 96] [--rounds 5] [--json FILE]

Items are the quickstart's, from compressed files: the times include their decoding. Each item alone
is what a search waits for; all together is what an index takes. Medians over the rounds. Loading is
measured in processes of their own, after the libraries are imported. Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import pyarrow.parquet as pq
import soundfile
from memory import status
from rich.console import Console
from rich.table import Table

import skillweave as sw
from skillweave.data.sources.pack import pack_folder
from skillweave.inference.predictor import Predictor, as_predictor
from skillweave.model.folders import model_folder

ENCODED = {
    "sentence": ("text_to_image", "text", "emoji", "caption_zh"),
    "picture": ("text_to_image", "image", "emoji", "image"),
    "clip of 2 seconds": ("text_to_video", "video", "clips", "video"),
    "function": ("text_to_code", "code", "code_zh", "code"),
}
"""Item → task, modality, file of the quickstart's pack and its column."""


def column(file: str, name: str, items: int) -> list[Any]:
    """The first values of a column; media as bytes."""
    values = pq.read_table(pack_folder() / f"{file}.parquet", columns=[name])[name]
    cells = values.slice(0, items).to_pylist()
    return [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]


def milliseconds(run: Callable[[list[Any]], Any], items: list[Any], rounds: int) -> list[float]:
    """Medians over rounds for an item: alone, and together with the others."""
    run(items[:2])
    alone, together = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        for item in items:
            run([item])
        middle = time.perf_counter()
        run(items)
        alone.append(middle - start)
        together.append(time.perf_counter() - middle)
    return [1000 * statistics.median(times) / len(items) for times in (alone, together)]


def speeds(predictor: Predictor, items: int, rounds: int) -> dict[str, list[float]]:
    """Item → milliseconds alone and together."""
    found = {}
    for name, (task, modality, file, field) in ENCODED.items():
        found[name] = milliseconds(
            lambda values, task=task, modality=modality: predictor.encode(
                task, None, **{modality: values}
            ),
            column(file, field, items),
            rounds,
        )
    sounds = column("speech", "sound", items)
    seconds = sum(_duration(sound) for sound in sounds) / len(sounds)
    found["second of sound"] = [
        one / seconds
        for one in milliseconds(
            lambda values: list(predictor.predict("speech_recognition", values)), sounds, rounds
        )
    ]
    return found


def _duration(content: bytes) -> float:
    return soundfile.info(io.BytesIO(content)).duration


def load_alone(model: str) -> None:
    """In a process of its own: print the seconds that loading takes, and the growth of memory."""
    before, start = status("VmRSS"), time.perf_counter()
    sw.load(model)
    print(json.dumps([time.perf_counter() - start, status("VmRSS") - before]))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="skillweave/tiny", help="name or folder")
    parser.add_argument("--items", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load_alone(options.model)
        return 0
    command = [sys.executable, __file__, options.model, "--load"]
    loads = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        for _ in range(options.rounds)
    ]
    predictor = as_predictor(options.model)
    found = {
        "weights, MB": (model_folder(options.model) / "model.safetensors").stat().st_size / 1e6,
        "parameters, M": predictor.model.count_parameters() / 1e6,
        "seconds to load": statistics.median(seconds for seconds, _ in loads),
        "memory of the loaded model, MB": statistics.median(bytes_ for _, bytes_ in loads) / 1e6,
        "milliseconds": speeds(predictor, options.items, options.rounds),
    }
    found["peak memory of the process, MB"] = status("VmHWM") / 1e6
    table = Table("figure", "value", title=f"{options.model}, one thread")
    for name, value in found.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.3g}")
    for name, (alone, together) in found["milliseconds"].items():
        table.add_row(f"milliseconds a {name}", f"{alone:.2f} alone, {together:.2f} together")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

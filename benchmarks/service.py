"""A service under load: batches against one request at a time, and one task against a mixture.

python benchmarks/service.py [--clients 200] [--seconds 600] [--json FILE]

Every client sends a request, waits for its answer and sends the next, over loopback, for so many
seconds: texts to embed, pictures to embed, documents to order, and labels to choose among. Each
answer is compared with that of the model alone. `one by one` is the same service with a batch of
one token, so that every input is a pass of the model, with eight clients at most. Figures are those of one machine on which
clients and service share the processors.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import skillweave as sw
from skillweave.data.sources.pack import pack_folder

MODEL = "skillweave/tiny"
MIXED = ("text", "image", "rerank", "classify")
ITEMS = 64
TOLERANCE = 1e-3
BATCHING = 3.0
"""Batches have so many times the throughput of one by one."""
MIXTURE = 0.9
"""A mixture has this share of the throughput that its tasks have apart."""


@dataclass
class Work:
    """A request and what its answer must hold: numbers."""

    path: str
    body: dict[str, Any]
    expected: np.ndarray
    read: Any


@dataclass
class Load:
    """What clients saw. Times in seconds."""

    times: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    memory: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return self.counts["right"] / max(self.seconds, 1e-9)


def prepare() -> dict[str, list[Work]]:
    """Requests of each kind, with what the model alone answers."""
    table = pq.read_table(pack_folder() / "emoji.parquet", columns=["image", "caption_zh"])
    rows = table.slice(0, ITEMS).to_pylist()
    texts = [row["caption_zh"] for row in rows]
    pictures = [row["image"]["bytes"] for row in rows]
    predictor = sw.Predictor(MODEL)
    words = predictor.encode("text_to_image", None, text=texts)
    images = predictor.encode("text_to_image", None, image=pictures)
    scale = float(
        predictor.model.targets[predictor.task("text_to_image").target_name].scale.detach()
    )
    found: dict[str, list[Work]] = {name: [] for name in MIXED}
    for i, text in enumerate(texts):
        others = [(i + k) % ITEMS for k in range(4)]
        chosen = [texts[j] for j in others]
        if len({*chosen}) < 4:
            continue
        uri = f"data:image/png;base64,{base64.b64encode(pictures[i]).decode()}"
        part = {"type": "image_url", "image_url": {"url": uri}}
        task = {"model": f"{MODEL}:text_to_image"}
        vectors = "/v1/embeddings"
        found["text"].append(Work(vectors, {**task, "input": text}, words[i], embedding))
        found["image"].append(Work(vectors, {**task, "input": [part]}, images[i], embedding))
        body = {**task, "query": text, "documents": chosen}
        cosines = words[others] @ words[i]
        found["rerank"].append(Work("/rerank", body, cosines, scores))
        logits = scale * words[others] @ images[i]
        shares = np.exp(logits - logits.max())
        body = {**task, "input": part, "labels": chosen}
        found["classify"].append(Work("/classify", body, shares / shares.sum(), probabilities))
    return found


def embedding(answer: dict[str, Any]) -> list[float]:
    """The vector of an answer."""
    return answer["data"][0]["embedding"]


def scores(answer: dict[str, Any]) -> list[float]:
    """The scores of documents in their own order."""
    results = sorted(answer["results"], key=lambda one: one["index"])
    return [one["relevance_score"] for one in results]


def probabilities(answer: dict[str, Any]) -> list[float]:
    """The shares of labels."""
    return answer["data"][0]["probs"]


async def client(
    http: httpx.AsyncClient, works: Sequence[Work], until: float, load: Load, seed: int
) -> None:
    """One after the other until the time is over."""
    draw = random.Random(seed)
    while time.monotonic() < until:
        work, begun = draw.choice(works), time.monotonic()
        try:
            answer = await http.post(work.path, json=work.body)
        except httpx.HTTPError as error:
            load.counts[f"lost: {type(error).__name__}"] += 1
            continue
        if answer.status_code == 200:
            found = np.array(work.read(answer.json()))
            right = np.allclose(found, work.expected, atol=TOLERANCE)
            load.counts["right" if right else "wrong"] += 1
            load.times.append(time.monotonic() - begun)
        elif answer.status_code in (429, 503):
            load.counts["refused"] += 1
            await asyncio.sleep(float(answer.headers["retry-after"]))
        else:
            load.counts[f"status {answer.status_code}"] += 1


async def drive(
    url: str, works: Sequence[Work], clients: int, seconds: float, process: int
) -> Load:
    """All clients at once."""
    load, until = Load(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        begun = time.monotonic()
        tasks = [client(http, works, until, load, seed) for seed in range(clients)]
        watching = asyncio.create_task(watch(process, load))
        await asyncio.gather(*tasks)
        load.seconds = time.monotonic() - begun
        watching.cancel()
    return load


async def watch(process: int, load: Load) -> None:
    """The memory of the service in MB, every second."""
    while True:
        with open(f"/proc/{process}/statm") as file:
            pages = int(file.read().split()[1])
        load.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        await asyncio.sleep(1)


class Service:
    """A service in a process of its own."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        words = [sys.executable, "-m", "skillweave", "serve", MODEL, "--no-page", "--no-isolate"]
        self.process = subprocess.Popen(
            [*words, "--port", str(port), *options], stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Service:
        for _ in range(1200):
            try:
                httpx.get(f"{self.url}/ready").raise_for_status()
                return self
            except httpx.HTTPError:
                time.sleep(0.1)
        raise RuntimeError("the service does not start")

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def measure(clients: int, seconds: float) -> tuple[dict[str, Load], list[dict[str, Any]]]:
    """The loads, and the rows of the report."""
    works = prepare()
    mixed = [work for one in works.values() for work in one]
    loads: dict[str, Load] = {}
    with Service() as service:
        pid = service.process.pid
        for name in MIXED:
            apart = asyncio.run(drive(service.url, works[name], clients, seconds / 10, pid))
            loads[name] = apart
        loads["mixed"] = asyncio.run(drive(service.url, mixed, clients, seconds, pid))
    with Service("--max-batch-tokens", "1") as service:
        pid = service.process.pid
        few = min(clients, 8)  # enough to keep it busy, and few enough that none is refused
        one = asyncio.run(drive(service.url, works["text"], few, seconds / 10, pid))
        loads["text, one by one"] = one
    apart = len(MIXED) / sum(1 / max(loads[name].rate, 1e-9) for name in MIXED)
    mixture, batching = loads["mixed"], loads["text"].rate / max(one.rate, 1e-9)
    bad = sum(n for kind, n in mixture.counts.items() if kind not in ("right", "refused"))
    half = len(mixture.memory) // 2
    growth = max(mixture.memory[half:], default=0) / max(mixture.memory[:half] or [1])
    rows = [
        row("batches / one by one", batching, "times", BATCHING, batching >= BATCHING),
        row(
            "mixture / tasks apart",
            mixture.rate / apart,
            "times",
            MIXTURE,
            mixture.rate >= MIXTURE * apart,
        ),
        row("lost or wrong answers", bad, "answers", 0, bad == 0),
        row("memory, second half / first", growth, "times", 1.1, growth <= 1.1),
    ]
    return loads, rows


def row(name: str, value: float, unit: str, bound: float, holds: bool) -> dict[str, Any]:
    """A row of the JSON report."""
    return {"name": name, "value": value, "unit": unit, "bound": bound, "holds": bool(holds)}


def main() -> int:
    """Measure, and show what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600, help="of the mixed load")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    loads, rows = measure(given.clients, given.seconds)
    table = Table(title=f"{given.clients} clients", title_justify="left")
    for column in ("load", "answers/s", "p50 ms", "p99 ms", "answers"):
        table.add_column(column, justify="left" if column == "load" else "right")
    for name, load in loads.items():
        times = load.times or [0.0]
        p99 = 1000 * float(np.percentile(times, 99))
        told = ", ".join(f"{n:,} {kind}" for kind, n in load.counts.items())
        median = 1000 * statistics.median(times)
        table.add_row(name, f"{load.rate:.1f}", f"{median:.0f}", f"{p99:.0f}", told)
    Console().print(table)
    for one in rows:
        held = "holds" if one["holds"] else "does not hold"
        print(f"{one['name']}: {one['value']:.2f} {one['unit']} (bound {one['bound']}: {held})")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    return 0 if all(one["holds"] for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

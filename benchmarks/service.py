"""A service under load, from its start to its stop: every answer right or honestly refused, even
memory, batches against one request at a time, a mixture against its tasks apart.

    python benchmarks/service.py [--clients 200] [--seconds 600] [--json FILE]

Every client sends a request over loopback, waits for its answer and sends the next. Requests are
of six kinds: texts, functions and pictures to embed, documents to order, labels to choose among,
and syllables to transcribe. Each answer is compared with that of the model alone.

1. `apart`: each kind alone, a twentieth of the seconds each.
2. `mixed`: all kinds in turn, for the seconds that are given.
3. `one by one`: texts, with a batch of one token, so that every input is a pass of the model.
4. `overload, then a stop`: a service that takes 64 requests at once, and SIGTERM in the middle:
   refusals say when to come again, and each answer that the log knows has arrived.

A rate counts the right answers of the time that was given; answers that come later are checked,
too. Clients and service share the processors of one machine, so give it nothing else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import pyarrow.parquet as pq
from report import Figure, report
from rich.console import Console
from rich.table import Table

import skillweave as sw
from skillweave.data.sources.pack import pack_folder

MODEL = "skillweave/tiny"
ITEMS = 64
TOLERANCE = 1e-3
BATCHING = 3.0
"""Batches have at least so many times the throughput of one by one."""
MIXTURE = 0.9
"""A mixture has at least this share of the throughput that its tasks have apart."""
GROWTH = 1.05
"""The memory of the second half of the load is at most so many times that of the first."""
AT_ONCE = 64
"""Requests that the service of the last load takes at once."""
REFUSED = "refused"

Json = dict[str, Any]


@dataclass
class Work:
    """A request of a kind. `read`: gives what its answer must hold, numbers or a text."""

    kind: str
    path: str
    body: bytes
    expected: Any
    read: Callable[[Json], Any]

    def holds(self, answer: Json) -> bool:
        """Whether an answer is right."""
        found = self.read(answer)
        if isinstance(self.expected, str):
            return found == self.expected
        return np.allclose(found, self.expected, atol=TOLERANCE)


@dataclass
class Load:
    """What clients saw. `times`: of right answers in seconds, by kind. `in_time`: right answers
    within the seconds that were given. `memory`: of the service in MB, each second."""

    seconds: float
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    in_time: int = 0
    memory: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return max(self.in_time / self.seconds, 1e-9)

    @property
    def bad(self) -> int:
        """Answers that are neither right nor refused with the time to come again."""
        return sum(n for name, n in self.counts.items() if name not in ("right", REFUSED))


def embedding(answer: Json) -> list[float]:
    return answer["data"][0]["embedding"]


def scores(answer: Json) -> list[float]:
    """In the order of the documents."""
    results = sorted(answer["results"], key=lambda one: one["index"])
    return [one["relevance_score"] for one in results]


def probabilities(answer: Json) -> list[float]:
    return answer["data"][0]["probs"]


def transcript(answer: Json) -> str:
    return answer["answers"][0]["transcript"]


def prepare() -> dict[str, list[Work]]:
    """Requests of each kind, with what the model alone answers."""
    emoji = pq.read_table(pack_folder() / "emoji.parquet", columns=["image", "name_zh"])
    first = {row["name_zh"]: row["image"]["bytes"] for row in emoji.slice(0, 3 * ITEMS).to_pylist()}
    texts, pictures = list(first)[:ITEMS], list(first.values())[:ITEMS]
    functions = pq.read_table(pack_folder() / "code_zh.parquet", columns=["code"])
    codes = functions["code"].to_pylist()[:ITEMS]
    speech = pq.read_table(pack_folder() / "speech.parquet", columns=["sound"])
    sounds = [row["bytes"] for row in speech["sound"].to_pylist()[:ITEMS]]

    predictor = sw.Predictor(MODEL)
    words = predictor.encode("text_to_image", None, text=texts)
    images = predictor.encode("text_to_image", None, image=pictures)
    coded = predictor.encode("text_to_code", None, code=codes)
    heard = predictor.predict("speech_recognition", [{"sound": sound} for sound in sounds])
    target: Any = predictor.model.targets[predictor.task("text_to_image").target_name]
    scale = float(target.scale.detach())

    found: dict[str, list[Work]] = defaultdict(list)

    def add(kind: str, path: str, body: Json, expected: Any, read: Callable[[Json], Any]) -> None:
        found[kind].append(Work(kind, path, json.dumps(body).encode(), expected, read))

    task = {"model": f"{MODEL}:text_to_image"}
    for i, text in enumerate(texts):
        others = [(i + k) % len(texts) for k in range(4)]
        chosen = [texts[j] for j in others]
        part = {"type": "image_url", "image_url": {"url": data_uri("image/png", pictures[i])}}
        logits = scale * words[others] @ images[i]
        shares = np.exp(logits - logits.max())
        add("text", "/v1/embeddings", {**task, "input": text}, words[i], embedding)
        add("image", "/v1/embeddings", {**task, "input": [part]}, images[i], embedding)
        body = {**task, "query": text, "documents": chosen}
        add("rerank", "/rerank", body, words[others] @ words[i], scores)
        body = {**task, "input": part, "labels": chosen}
        add("classify", "/classify", body, shares / shares.sum(), probabilities)
    for code, vector in zip(codes, coded, strict=True):
        body = {"model": f"{MODEL}:text_to_code", "input": [{"type": "code", "code": code}]}
        add("code", "/v1/embeddings", body, vector, embedding)
    for sound, answer in zip(sounds, heard, strict=True):
        body = {"inputs": [{"sound": data_uri("audio/wav", sound)}]}
        add("speech", "/tasks/speech_recognition", body, answer["transcript"], transcript)
    return found


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


async def client(
    http: aiohttp.ClientSession, works: Sequence[Work], until: float, load: Load, seed: int
) -> None:
    """One request after the other until the time is over or nobody listens any more."""
    draw = random.Random(seed)
    headers = {"content-type": "application/json"}
    while time.monotonic() < until:
        work, begun = draw.choice(works), time.monotonic()
        try:
            async with http.post(work.path, data=work.body, headers=headers) as answer:
                content = await answer.read()
        except aiohttp.ClientConnectorError:
            return load.counts.update(["not listening"])
        except (aiohttp.ClientError, TimeoutError) as error:
            load.counts[f"lost: {type(error).__name__}"] += 1
            continue
        ended = time.monotonic()
        if answer.status == 200:
            right = work.holds(json.loads(content))
            load.counts["right" if right else "wrong"] += 1
            load.times[work.kind].append(ended - begun)
            load.in_time += right and ended < until
        elif answer.status in (429, 503) and "retry-after" in answer.headers:
            load.counts[REFUSED] += 1
            pause = min(float(answer.headers["retry-after"]), until - ended)
            await asyncio.sleep(max(0.0, pause))
        else:
            load.counts[f"status {answer.status}"] += 1


async def drive(
    service: Service, works: Sequence[Work], clients: int, seconds: float, stop_after: float = 0
) -> Load:
    """All clients at once. `stop_after`: seconds until SIGTERM; 0 for none."""
    load = Load(seconds)
    connections = aiohttp.TCPConnector(limit=0)
    until = time.monotonic() + seconds
    async with aiohttp.ClientSession(service.url, connector=connections) as http:
        watching = asyncio.create_task(watch(service, load, seconds))
        if stop_after:
            asyncio.get_running_loop().call_later(
                stop_after, service.process.send_signal, signal.SIGTERM
            )
        await asyncio.gather(*(client(http, works, until, load, i) for i in range(clients)))
        watching.cancel()
    return load


async def watch(service: Service, load: Load, seconds: float) -> None:
    """The memory of the service, at least thirty times."""
    while True:
        with suppress(OSError):
            pages = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1])
            load.memory.append(pages * resource.getpagesize() / 1e6)
        await asyncio.sleep(min(1.0, seconds / 30))


class Service:
    """A service in a process of its own."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 as long as the process
        words = [sys.executable, "-m", "skillweave", "serve", MODEL, "--no-page", "--port"]
        self.process = subprocess.Popen([*words, str(port), *options], stderr=self.log)

    def __enter__(self) -> Service:
        for _ in range(1200):
            if self.process.poll() is not None:
                break
            try:
                httpx.get(f"{self.url}/ready").raise_for_status()
                return self
            except httpx.HTTPError:
                time.sleep(0.1)
        self.log.seek(0)
        raise RuntimeError(f"the service does not start: {self.log.read()[-2000:].decode()}")

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(300)

    def statuses(self) -> Counter[int]:
        """The statuses of all answers to POST, by the log."""
        self.log.seek(0)
        lines = (json.loads(line) for line in self.log if line.startswith(b"{"))
        told = (one for one in lines if one["event"] == "request" and one["method"] == "POST")
        return Counter(one["status"] for one in told)


def measure(clients: int, seconds: float) -> tuple[dict[str, Load], list[Figure]]:
    """The loads, and what they were to show."""
    kinds = prepare()
    mixed = [work for works in kinds.values() for work in works]
    loads: dict[str, Load] = {}
    few = min(clients, 8)  # enough to keep one by one busy, and few enough that none is refused

    def run(name: str, service: Service, works: Sequence[Work], count: int, last: float) -> None:
        loads[name] = asyncio.run(drive(service, works, count, last))

    # Media are decoded in this process: what is compared is the model's batches.
    with Service("--no-isolate") as service:
        run("warm-up", service, mixed, clients, min(5.0, seconds / 10))
        for kind, works in kinds.items():
            run(kind, service, works, clients, seconds / 20)
        run("mixed", service, mixed, clients, seconds)
    with Service("--no-isolate", "--max-batch-tokens", "1") as service:
        run("warm-up", service, kinds["text"], few, 1.0)
        run("text, one by one", service, kinds["text"], few, seconds / 20)
    with Service("--max-concurrent-requests", str(AT_ONCE)) as service:
        last = max(8.0, seconds / 20)
        loads["overload, then a stop"] = ended = asyncio.run(
            drive(service, mixed, clients, last, last / 2)
        )
        begun = time.monotonic()
        status = service.process.wait(300)
        stopped, logged = time.monotonic() - begun, service.statuses()[200]
    del loads["warm-up"]

    apart = len(kinds) / sum(1 / loads[kind].rate for kind in kinds)
    mixture, batching = loads["mixed"], loads["text"].rate / loads["text, one by one"].rate
    half = len(mixture.memory) // 2
    growth = max(mixture.memory[half:]) / max(mixture.memory[:half])
    bad = sum(load.bad for load in loads.values() if load is not ended)
    # a request that is lost to a service that has stopped was not accepted: see below
    bad += sum(n for name, n in ended.counts.items() if name.startswith(("wrong", "status")))
    unanswered = logged - ended.counts["right"] - ended.counts["wrong"]
    print(f"stopped {stopped:.1f} s after the last answer, exit status {status}")
    refusals = ended.counts[REFUSED]
    return loads, [
        Figure("batches / one by one", batching, "times, least", BATCHING, batching >= BATCHING),
        Figure(
            "mixture / tasks apart",
            mixture.rate / apart,
            "times, least",
            MIXTURE,
            mixture.rate >= MIXTURE * apart,
        ),
        Figure("lost, wrong or refused without a time", bad, "answers, most", 0, bad == 0),
        Figure("memory, second half / first", growth, "times, most", GROWTH, growth <= GROWTH),
        Figure("refusals under overload", refusals, "answers, least", 1, refusals >= 1),
        Figure(
            "accepted before SIGTERM, not answered",
            unanswered,
            "answers, most",
            0,
            unanswered == 0 and status == 0,
        ),
    ]


def show(loads: dict[str, Load], clients: int) -> None:
    """A table of the loads, the mixed one by kind as well."""
    table = Table(title=f"{clients} clients", title_justify="left")
    for column in ("load", "answers/s", "p50 ms", "p99 ms", "longest ms", "MB", "answers"):
        table.add_column(column, justify="left" if column in ("load", "answers") else "right")

    def add(name: str, rate: float, times: Sequence[float], memory: str, told: str) -> None:
        shown = [f"{1000 * np.percentile(times, q):,.0f}" if times else "" for q in (50, 99, 100)]
        table.add_row(name, f"{rate:,.1f}", *shown, memory, told)

    for name, load in loads.items():
        told = ", ".join(f"{n:,} {what}" for what, n in sorted(load.counts.items()))
        every = [one for times in load.times.values() for one in times]
        add(name, load.rate, every, f"{max(load.memory):,.0f}", told)
        if name == "mixed":
            for kind, times in sorted(load.times.items()):
                add(f"  {kind}", len(times) / load.seconds, times, "", "")
    Console().print(table)


def main() -> int:
    """Measure, and show what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600, help="of the mixed load")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    loads, figures = measure(given.clients, given.seconds)
    show(loads, given.clients)
    return report(f"{given.clients} clients, {given.seconds:g} s", figures, given.json)


if __name__ == "__main__":
    sys.exit(main())

"""Damaged requests and files: every endpoint refuses them in its own words, and serves the next."""

import base64
import json
import random
import resource
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from mutations import mutate
from served import http

REFUSED = {400, 401, 404, 405, 408, 413, 422, 429}
"""What a fault of the client leads to."""
TINY = "skillweave/tiny"


def uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def told(answer: httpx.Response) -> None:
    """A right answer, or an error in the form of all errors."""
    assert answer.status_code in {200, *REFUSED}, (answer.status_code, answer.text[:500])
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["message"] and error["code"] != "internal", answer.text


def alive(url: str) -> None:
    answer = http.post(f"{url}/v1/embeddings", json={"model": TINY, "input": "dog"}, timeout=60)
    assert answer.status_code == 200


@pytest.fixture(scope="module")
def bodies(run: Path) -> list[tuple[str, dict[str, Any]]]:
    """A right request to each endpoint."""
    data = run.parent / "data"
    image = uri((data / "test-0.png").read_bytes(), "image/png")
    sound = base64.b64encode((data / "test-0.wav").read_bytes()).decode()
    part = {"type": "image_url", "image_url": {"url": image}}
    chat = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    return [
        ("/v1/embeddings", {"model": "run", "input": ["red", part], "dimensions": 4}),
        ("/v1/completions", {"model": "writer", "prompt": "a", "max_tokens": 2, "n": 1}),
        ("/v1/completions", {"model": "writer", "prompt": "a", "max_tokens": 2, "stream": True}),
        ("/v1/chat/completions", {"model": "writer", "messages": [chat], "max_tokens": 2}),
        ("/v2/embed", {"model": "run", "images": [image], "embedding_types": ["int8"]}),
        ("/v2/rerank", {"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1}),
        ("/score", {"text_1": "a", "text_2": ["b", "c"]}),
        ("/classify", {"model": "run", "input": [part], "labels": ["a", "b"]}),
        ("/tasks/text_to_image", {"model": "run", "inputs": [{"image": image}, "red"]}),
        ("/tasks/text_classification", {"inputs": ["so good", {"text": "bad"}]}),
        ("/search", {"query": "a", "where": ["b=c"], "words": True}),
        (
            "/v2/embed",
            {
                "model": "run",
                "inputs": [{"content": [{"type": "input_audio", "input_audio": {"data": sound}}]}],
            },
        ),
    ]


def test_damaged_bodies_are_told(url: str, bodies: list[tuple[str, dict[str, Any]]]) -> None:
    rng = random.Random(0)
    refused = 0
    with httpx.Client(base_url=url, timeout=60) as client:
        for path, body in bodies:
            whole = json.dumps(body).encode()
            for _ in range(12):
                damaged = mutate(whole, "body.json", rng)
                headers = {"content-type": "application/json"}
                answer = client.post(path, content=damaged, headers=headers)
                told(answer)
                refused += answer.status_code != 200
    assert refused > len(bodies) * 6
    alive(url)


def test_damaged_files_are_told(url: str, run: Path) -> None:
    rng = random.Random(0)
    data, statuses = run.parent / "data", set()
    kinds = {"png": "image/png", "wav": "audio/wav", "mp4": "video/mp4"}
    with httpx.Client(base_url=url, timeout=60) as client:
        for suffix, kind in kinds.items():
            whole = (data / f"test-1.{suffix}").read_bytes()
            for _ in range(25):
                damaged = uri(mutate(whole, f"a.{suffix}", rng), kind)
                answer = client.post("/v2/embed", json={"model": "run", "images": [damaged]})
                told(answer)
                statuses.add(answer.status_code)
        for _ in range(15):
            sound = mutate((data / "test-1.wav").read_bytes(), "a.wav", rng)
            files = {"file": ("../../a\r\n.wav", sound, "audio/wav")}
            told(client.post("/v1/audio/transcriptions", files=files, data={"model": "run"}))
    assert statuses >= {200, 400}
    alive(url)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"input": ' + b'{"a": ' * 50_000,
        b'{"input": "\\ud800", "model": "\\udfff"}',
        b'{"\\ud800": 1}',
        b'{"input": "a", "dimensions": 1e400}',
        b'{"input": "a", "dimensions": ' + b"9" * 5000 + b"}",
        b'{"input": "a", "dimensions": NaN}',
        b'{"input": "a\\u0000b\\u001b[2J"}',
        b"\xff\xfe\x00",
        b"",
        b"null",
    ],
    ids=lambda content: repr(content[:30]),
)
def test_strange_json_is_told(url: str, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    for path in ("/v1/embeddings", "/classify", "/tasks/text_to_code"):
        told(http.post(f"{url}{path}", content=content, headers=headers, timeout=60))


def test_strange_paths_are_told(url: str) -> None:
    for path in (
        "/tasks/..%2f..%2fetc%2fpasswd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/" + "a" * 5000,
        "/tasks/%00%0d%0aset-cookie:a=b",
        "/v1/models/%ff%fe",
    ):
        answer = http.request("POST" if "tasks" in path else "GET", f"{url}{path}", json={})
        told(answer)
        assert "set-cookie" not in answer.headers


def raw(url: str, content: bytes, seconds: float = 5) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), seconds) as one:
        one.sendall(content)
        try:
            return one.recv(4096)
        except TimeoutError:
            return b""


def test_strange_requests_are_told(url: str) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\n"
    long = b"x-long: " + b"a" * 200_000 + b"\r\n\r\n"
    smuggled = b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    for content in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/9.9\r\n\r\n",
        head + b"content-length: -5\r\n\r\n",
        head + b"content-length: 5, 6\r\n\r\nabcde",
        head + long,
        head + b"x: a\x00b\r\n\r\n",
        head + smuggled,
    ):
        answer = raw(url, content)
        assert b" 200 " not in answer[:20] and b" 500 " not in answer[:20], (content[:60], answer)
    alive(url)


def test_bombs_do_not_fill_the_memory(url: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    side, packer = 30_000, zlib.compressobj()
    rows = [packer.compress(bytes(1 + side // 8)) for _ in range(side)]  # one bit a pixel
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"IDAT", b"".join(rows) + packer.flush()), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(x).to_bytes(4, "big") + name + x + zlib.crc32(name + x).to_bytes(4, "big")
        for name, x in chunks
    )
    assert len(bomb) < 500_000
    begun = time.monotonic()
    answer = http.post(
        f"{url}/v2/embed",
        json={"model": TINY, "images": [uri(bomb, "image/png")]},
        timeout=60,
    )
    assert answer.status_code == 400 and "pixels" in answer.json()["message"]
    packed = zlib.compress(b"[" * 10**7)
    headers = {"content-type": "application/json", "content-encoding": "deflate"}
    told(http.post(f"{url}/v1/embeddings", content=packed, headers=headers))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000 and time.monotonic() - begun < 60  # kilobytes

"""What strangers may do: tokens, sizes, times, numbers, and what stands in the log."""

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from served import http, serving_app

from skillweave.serving.errors import Overloaded
from skillweave.serving.logs import JsonFormatter, log
from skillweave.serving.metrics import Metrics
from skillweave.serving.protection import ClientLimits, Protection
from skillweave.serving.settings import ServiceConfig

SETTINGS = {
    "max_body_bytes": 1000,
    "body_seconds": 1.0,
    "request_seconds": 4.0,
    "max_concurrent_requests": 2,
}


def guarded(settings: ServiceConfig) -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @app.post("/sleep")
    async def sleep(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "rested"

    @app.post("/fault")
    async def fault() -> None:
        raise RuntimeError("secret of the service")

    @app.get("/health")
    async def health() -> str:
        return "ok"

    app.add_middleware(Protection, settings=settings, metrics=Metrics(), stopping=asyncio.Event())
    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    settings = ServiceConfig(**SETTINGS)
    with serving_app(guarded(settings), settings) as found:
        yield found


@pytest.fixture
def closed() -> Iterator[str]:
    settings = ServiceConfig(api_keys=("first", "second"), client_requests_per_minute=3)
    with serving_app(guarded(settings)) as found:
        yield found


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def raw(url: str, *parts: bytes, pause: float = 0.0) -> bytes:
    """What a server answers to bytes, sent with pauses."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as one:
        for part in parts:
            one.sendall(part)
            time.sleep(pause)
        return one.recv(4096)


def test_large_bodies_are_refused_before_they_are_read(url: str) -> None:
    assert http.post(f"{url}/echo", content=b"x" * 1000).json() == 1000
    assert code(http.post(f"{url}/echo", content=b"x" * 1001)) == (413, "body_too_large")
    parts = (b"x" * 600 for _ in range(100))  # of no length that is told
    assert code(http.post(f"{url}/echo", content=parts)) == (413, "body_too_large")
    told = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n"
    assert b" 413 " in raw(url, told)


def test_slow_bodies_are_refused(url: str) -> None:
    begun = time.monotonic()
    head = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 900\r\n\r\n"
    assert b" 408 " in raw(url, head, *[b"x"] * 5, pause=0.3)
    assert time.monotonic() - begun < 60


def test_slow_headers_cost_the_connection(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    whole = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx"
    for before in (b"", whole):  # the first request of a connection, and a later one
        with socket.create_connection((host, int(port)), 30) as one:
            one.sendall(before)
            with contextlib.suppress(ConnectionError):
                for byte in b"POST /echo HTTP/1.1":
                    one.sendall(bytes([byte]))
                    time.sleep(0.01)
                while one.recv(4096):  # until the service closes it
                    pass
    assert http.get(f"{url}/health").status_code == 200


def test_an_answer_that_takes_too_long_is_refused(url: str) -> None:
    answer = http.post(f"{url}/sleep?seconds=60")
    assert code(answer) == (503, "unavailable") and answer.headers["retry-after"] == "1"


def test_one_too_many_is_told_to_come_again(url: str) -> None:
    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=120) as client:
            return await asyncio.gather(
                *(client.post(f"{url}/sleep?seconds=1.5") for _ in range(4))
            )

    answers = asyncio.run(all_at_once())
    assert sorted(one.status_code for one in answers) == [200, 200, 429, 429]
    assert all("retry-after" in one.headers for one in answers if one.status_code == 429)
    assert http.get(f"{url}/health").status_code == 200


def test_a_fault_tells_nothing_of_the_service(url: str) -> None:
    answer = http.post(f"{url}/fault")
    assert code(answer) == (500, "internal") and "secret" not in answer.text


def test_requests_bear_a_token(closed: str) -> None:
    post = http.post
    assert code(post(f"{closed}/echo")) == (401, "invalid_api_key")
    assert http.get(f"{closed}/page").headers["www-authenticate"].startswith("Basic")
    for header in ("Bearer third", "Bearer", "Basic first", "first", "Bearer first second"):
        assert post(f"{closed}/echo", headers={"authorization": header}).status_code in (401, 429)
    assert http.get(f"{closed}/health").status_code == 200
    first, second = ({"authorization": f"Bearer {key}"} for key in ("first", "second"))
    answers = [post(f"{closed}/echo", headers=first) for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert post(f"{closed}/echo", headers=second).status_code == 200
    # a browser asks a person for a password, and sends it so
    assert post(f"{closed}/echo", auth=("anybody", "second")).status_code == 200


def test_buckets_fill_up_evenly_and_are_few() -> None:
    limits = ClientLimits(60)
    for _ in range(60):
        limits.count("a", now=0.0)
    with pytest.raises(Overloaded):
        limits.count("a", now=0.5)
    limits.count("a", now=1.0)
    with pytest.raises(Overloaded):
        limits.count("a", now=1.5)
    for client in range(20_000):
        limits.count(str(client), now=2.0)
    assert len(limits.left) == 10_000


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, "skillweave.serving")
    formatter = JsonFormatter()
    return lambda: [json.loads(formatter.format(one)) for one in caplog.records]


def test_what_a_client_sends_stays_one_string_of_the_log(
    url: str, lines: Callable[[], list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    evil = "/a%0a%7B%22event%22:%22forged%22%7D%1b[31m%e2%80%a8" + "x" * 1000
    headers = {"x-request-id": 'a" forged'}
    answer = http.get(f"{url}{evil}", headers=headers)
    assert answer.status_code == 404 and "forged" not in answer.headers["x-request-id"]
    end = time.monotonic() + 10  # the line is written after the answer
    while not caplog.records and time.monotonic() < end:
        time.sleep(0.01)
    (line,) = (one for one in lines() if one["event"] == "request")
    assert line["path"].startswith('/a\n{"event":"forged"}\x1b[31m') and len(line["path"]) <= 300
    text = JsonFormatter().format(caplog.records[-1])
    assert text.isascii() and text.isprintable()
    kept = http.get(f"{url}/health", headers={"x-request-id": "my.id-1"})
    assert kept.headers["x-request-id"] == "my.id-1"


def test_an_error_has_its_trace_in_one_line(
    lines: Callable[[], list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        log("error", logging.ERROR, exc_info=error, id="a")
    assert "\n" not in JsonFormatter().format(caplog.records[-1])
    assert "two\nlines" in lines()[-1]["trace"]

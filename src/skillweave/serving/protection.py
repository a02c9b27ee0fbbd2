"""What stands before every endpoint: tokens, limits of size, time and number, and a line of the log
for each request."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from skillweave.serving.errors import (
    BodyTooLarge,
    BodyTooSlow,
    Overloaded,
    RequestError,
    Unauthorized,
    Unavailable,
    error_body,
)
from skillweave.serving.logs import log
from skillweave.serving.metrics import Metrics
from skillweave.serving.settings import ServiceConfig

OPEN = ("/health", "/ready")
"""Paths that need no token."""
REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
CLIENTS = 10_000
"""Clients whose requests are counted; of more, those that were seen longest ago are forgotten."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Protection:
    """An ASGI application around another one. `stopping`: set when the service stops."""

    def __init__(
        self, app: App, settings: ServiceConfig, metrics: Metrics, stopping: asyncio.Event
    ) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.stopping = stopping
        self.clients = ClientLimits(settings.client_requests_per_minute)
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or pass on what is none."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        headers = {name.decode("latin-1"): x.decode("latin-1") for name, x in scope["headers"]}
        asked = headers.get("x-request-id", "")
        number = asked if REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        about: dict[str, Any] = {}
        scope.setdefault("state", {})["about"] = about

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", number.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            await self._handle(scope, receive, answer, headers)
        except RequestError as error:
            about["error"] = error.code
            if not status:
                body = error_body(str(error), error.code, error.status)
                await JSONResponse(body, error.status, error.headers)(scope, receive, answer)
        except asyncio.CancelledError:
            status = status or 499
            raise
        except Exception as error:
            about["error"] = "internal"
            log("error", logging.ERROR, exc_info=error, id=number)
            if not status:
                body = error_body("an error of the service; see its log", "internal", 500)
                await JSONResponse(body, 500)(scope, receive, answer)
        finally:
            self._tell(scope, begun, status, number, about)

    async def _handle(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]
    ) -> None:
        path, settings = scope["path"], self.settings
        if path in OPEN:
            await self.app(scope, receive, send)
            return
        client = self._client(scope, headers)
        self.clients.count(client)
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, self._until_stopped(receive), send)
            return
        if self.running >= settings.max_concurrent_requests:
            raise Overloaded(f"{self.running:,} requests are worked on; try again later", 1)
        self.running += 1
        try:
            body = await self._body(receive, headers)
            async with asyncio.timeout(settings.request_seconds):
                await self.app(scope, _replayed(body, receive), send)
        except TimeoutError:
            told = f"no answer within {settings.request_seconds:g} s; send less, or try again later"
            raise Unavailable(told) from None
        finally:
            self.running -= 1

    def _client(self, scope: Scope, headers: dict[str, str]) -> str:
        """What tells a client from others. Raises Unauthorized without a known token."""
        address = (scope.get("client") or ["unknown"])[0]
        if not self.settings.api_keys:
            return address
        token = token_of(headers.get("authorization", ""))
        # all are compared, in constant time, so that time tells nothing of them
        known = [hmac.compare_digest(token.encode(), k.encode()) for k in self.settings.api_keys]
        if not any(known):
            self.clients.count(address)
            raise Unauthorized
        return f"token {known.index(True)}"

    async def _body(self, receive: Receive, headers: dict[str, str]) -> bytes:
        """The whole body. Raises BodyTooLarge and BodyTooSlow before more of it is kept."""
        most = self.settings.max_body_bytes
        told = f"a body has at most {most:,} bytes here; send fewer or smaller inputs"
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise BodyTooLarge(told)
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return bytes(body)
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise BodyTooLarge(told)
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            seconds = self.settings.body_seconds
            raise BodyTooSlow(f"the body did not arrive within {seconds:g} s") from None

    def _until_stopped(self, receive: Receive) -> Receive:
        """`receive`, which says that the client left when the service stops, so that the open
        streams of pages end."""

        async def either() -> Message:
            stopped = asyncio.ensure_future(self.stopping.wait())
            message = asyncio.ensure_future(receive())
            try:
                await asyncio.wait((stopped, message), return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else {"type": "http.disconnect"}
            finally:
                stopped.cancel()
                message.cancel()

        return either

    def _tell(
        self, scope: Scope, begun: float, status: int, number: str, about: dict[str, Any]
    ) -> None:
        """Count a request and write its line."""
        seconds = time.perf_counter() - begun
        if scope["path"] in (*OPEN, "/metrics"):
            return
        if "model" in about or status >= 400:
            self.metrics.requests.inc()
            if status < 400:
                self.metrics.successes.inc()
                self.metrics.duration.observe(seconds)
            else:
                self.metrics.failures.labels(about.get("error", str(status))).inc()
        log(
            "request",
            logging.INFO if status < 500 else logging.ERROR,
            id=number,
            client=(scope.get("client") or ["unknown"])[0],
            method=scope["method"],
            path=scope["path"],
            status=status,
            milliseconds=round(1000 * seconds, 1),
            **about,
        )


class ClientLimits:
    """A bucket of requests for each client, which fills up evenly. `per_minute`: 0 for none."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self.left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def count(self, client: str, now: float | None = None) -> None:
        """Count a request. Raises Overloaded when the client has none left."""
        if not self.per_minute:
            return
        now = time.monotonic() if now is None else now
        left, seen = self.left.pop(client, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - seen) * self.per_minute / 60)
        self.left[client] = (left - 1 if left >= 1 else left, now)
        if len(self.left) > CLIENTS:
            self.left.popitem(last=False)
        if left < 1:
            raise Overloaded(
                f"more than {self.per_minute} requests a minute; try again later",
                (1 - left) * 60 / self.per_minute,
            )


def token_of(authorization: str) -> str:
    """The token of a client, or the password that a person gave a browser; empty for none."""
    kind, _, given = authorization.partition(" ")
    if kind.lower() == "bearer":
        return given.strip()
    try:
        decoded = base64.b64decode(given, validate=True).decode() if kind.lower() == "basic" else ""
    except ValueError:
        return ""
    return decoded.partition(":")[2]


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, and then what else the client does."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay

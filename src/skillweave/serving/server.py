"""Run the application until it is told to stop, and answer what was accepted by then."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from skillweave.config import ConfigError
from skillweave.serving.logs import log, set_up_logs
from skillweave.serving.models import Models
from skillweave.serving.settings import ServiceConfig


class Server(uvicorn.Server):
    """Sets `app.state.stopping` on SIGTERM and SIGINT: readiness ends, and open pages are told."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.application = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See `uvicorn.Server`. The signal is not raised again: the service ends as it should."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        self.application.state.stopping.set()


def protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes a connection whose request line and headers do not arrive
    within so many seconds: a client that sends them byte by byte would keep it for ever."""

    base: Any = AutoHTTPProtocol  # one of two classes, as uvicorn finds httptools

    class Timed(base):
        closing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait(transport)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            answered: Any = self  # attributes of both of uvicorn's protocols
            if answered.cycle is None or answered.cycle.response_complete:
                self._wait(answered.transport)
            else:
                self._stop()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _wait(self, transport: Any) -> None:
            if self.closing is None:
                loop = asyncio.get_running_loop()
                self.closing = loop.call_later(seconds, transport.close)

        def _stop(self) -> None:
            if self.closing is not None:
                self.closing.cancel()
                self.closing = None

    return Timed


CONNECTIONS = 1024
"""Connections that may be open beside the requests that are answered. Beyond them uvicorn refuses
with a bare 503; the service itself refuses requests earlier, and says when to come again."""


def configured(app: Any, settings: ServiceConfig) -> uvicorn.Config:
    """How uvicorn serves an application."""
    return uvicorn.Config(
        app,
        http=protocol(settings.body_seconds),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=settings.stop_seconds,
        h11_max_incomplete_event_size=64 * 1024,
        limit_concurrency=2 * settings.max_concurrent_requests + CONNECTIONS,
        ws="none",
        lifespan="on",
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound. Raises ConfigError for an address that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        told = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{host}:{port} cannot be listened to ({told}); give another --port"
        ) from None
    return bound


def run(app: FastAPI, models: Models, settings: ServiceConfig, bound: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, and then until what was accepted is answered, at most
    `settings.stop_seconds`."""
    set_up_logs()
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}", file=sys.stderr, flush=True)
    log("listening", host=host, port=port, models=[model.name for model in models])
    Server(configured(app, settings), app).run(sockets=[bound])
    models.stop(settings.stop_seconds)
    log("stopped")

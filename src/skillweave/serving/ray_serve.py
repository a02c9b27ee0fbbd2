"""The same application on Ray Serve: replicas, on one machine or on a cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI

from skillweave.config import ConfigError
from skillweave.serving.logs import log, set_up_logs
from skillweave.serving.settings import ServiceConfig

NAME = "skillweave"
REQUIRED = ("ray", "opencensus")
"""Ray, and what comes with Ray Serve alone."""


def require_ray() -> None:
    """Raises ConfigError where Ray Serve is absent."""
    if any(find_spec(name) is None for name in REQUIRED):
        raise ConfigError(
            "--engine ray needs Ray Serve; install it with: pip install 'skillweave[serve-ray]'"
        )


def run(build: Callable[[], FastAPI], settings: ServiceConfig, replicas: int = 1) -> None:
    """Serve until SIGTERM or Ctrl-C, and then until each replica has answered what it accepted, at
    most `settings.stop_seconds`.

    `build`: makes the application in the process of a replica; it must be picklable. A cluster is
    joined where `RAY_ADDRESS` names one, else Ray is started here. Limits that count requests or
    clients hold for each replica.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # ty: ignore[import-not-found] an extra of its own
    from ray import serve  # ty: ignore[import-not-found]

    set_up_logs()
    stopping = threading.Event()
    ray.init(include_dashboard=None if "RAY_ADDRESS" in os.environ else False, log_to_driver=True)
    try:
        for one in (signal.SIGTERM, signal.SIGINT):  # in place of Ray's, which end at once
            signal.signal(one, lambda *_: stopping.set())
        serve.start(http_options={"host": settings.host, "port": settings.port})
        serve.run(_deployment(build, settings, replicas).bind(), name=NAME, route_prefix="/")
        log("listening", host=settings.host, port=settings.port, replicas=replicas)
        stopping.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
    log("stopped")


def _deployment(build: Callable[[], FastAPI], settings: ServiceConfig, replicas: int) -> Any:
    from ray import serve  # ty: ignore[import-not-found]

    def application() -> FastAPI:  # Ray Serve takes plain functions alone
        set_up_logs()
        return build()

    return serve.deployment(
        serve.ingress(application)(),
        name=NAME,
        num_replicas=replicas,
        # the application itself refuses what is too much, and says so to the client
        max_ongoing_requests=2 * settings.max_concurrent_requests + 64,
        graceful_shutdown_timeout_s=settings.stop_seconds,
    )

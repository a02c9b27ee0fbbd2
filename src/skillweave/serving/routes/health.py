"""Whether the service lives, whether it is ready, and what it counted."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from skillweave.serving.errors import Unavailable
from skillweave.serving.metrics import CONTENT_TYPE
from skillweave.serving.routes.shared import ServedModels

router = APIRouter(tags=["health"])


@router.get("/health")
def health(models: ServedModels) -> dict[str, str]:
    """Whether the models still run: 200, else 503."""
    for model in models:
        if not model.engine.thread.is_alive():
            raise Unavailable(f"model {model.name!r} has stopped")
    return {"status": "ok"}


@router.get("/ready")
def ready(request: Request, models: ServedModels) -> dict[str, str]:
    """Whether new requests are welcome: 200, or 503 once the service stops."""
    if request.app.state.stopping.is_set():
        raise Unavailable("the service stops")
    return {"status": "ready"}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(models: ServedModels) -> Response:
    """Counters for Prometheus, named as text-generation-inference's."""
    return Response(models.metrics.text(), media_type=CONTENT_TYPE)

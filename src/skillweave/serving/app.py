"""The application: all endpoints, behind one protection."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from skillweave import __version__
from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.serving.collections import Collections
from skillweave.serving.errors import RESPONSES, RequestError, error_body
from skillweave.serving.models import Models
from skillweave.serving.protection import Protection
from skillweave.serving.routes import cohere, health, openai, scoring, search, tasks


def build_app(
    models: Models,
    collections: Collections | None = None,
    page: bool = False,
    tools: bool = False,
) -> FastAPI:
    """The ASGI application that serves some models, with the settings that they were opened with.

    `collections`: what is searched. `page`: whether a web page is at /. `tools`: whether assistants
    find tools at /mcp.

    `app.state.stopping`: an event that is set when no more requests are welcome.
    """
    settings = models.settings
    app = FastAPI(
        title="skillweave",
        version=__version__,
        docs_url=None,  # its scripts come from another host
        redoc_url=None,
        responses=RESPONSES,
    )
    app.state.models, app.state.stopping = models, asyncio.Event()
    app.state.collections = collections = collections or Collections()
    for family in (health, openai, cohere, scoring, search, tasks):
        app.include_router(family.router)
    app.add_exception_handler(RequestError, _tell)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(HTTPException, _tell_http)
    for kind in (BadInput, ConfigError):
        app.add_exception_handler(kind, _tell_bad)
    if tools:
        from skillweave.serving.tools import open_tools  # of the extra `mcp`

        server = open_tools(models, collections)
        app.router.routes.extend(server.streamable_http_app().routes)
        app.router.lifespan_context = lambda _: server.session_manager.run()
    if page:
        from skillweave.serving.page import mount_page  # Gradio is slow to import

        mount_page(app, models, collections)
    app.add_middleware(
        Protection, settings=settings, metrics=models.metrics, stopping=app.state.stopping
    )
    if settings.allowed_origins:  # outermost: a browser asks for leave without a token
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    return app


async def _tell(request: Request, error: Any) -> JSONResponse:
    request.state.about["error"] = error.code
    return JSONResponse(
        error_body(str(error), error.code, error.status), error.status, error.headers
    )


async def _tell_bad(request: Request, error: Exception) -> JSONResponse:
    return await _tell(request, RequestError(str(error)))


async def _tell_http(request: Request, error: Any) -> JSONResponse:
    request.state.about["error"] = str(error.status_code)
    body = error_body(str(error.detail), "http", error.status_code)
    return JSONResponse(body, error.status_code, getattr(error, "headers", None))


async def _tell_invalid(request: Request, error: Any) -> JSONResponse:
    request.state.about["error"] = "invalid"
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"][1:])[:200]
    told = f"{where}: {fault['msg']}" if where else str(fault["msg"])
    return JSONResponse(error_body(told, "invalid", 422, where or None), 422)

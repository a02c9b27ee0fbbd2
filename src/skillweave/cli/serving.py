"""The command that serves models: `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import Device, Results, Tasks, started


def serve(
    models: Annotated[
        list[str],
        Argument(
            metavar="MODEL...",
            help="Runs, checkpoints, model folders, Hugging Face folders or ids; NAME=MODEL gives"
            " one another name.",
        ),
    ],
    tasks: Tasks = None,
    data: Annotated[
        str | None,
        Option(
            metavar="DATA",
            help="A folder of files, a table, or the folder of an index, which people search with"
            " the first model.",
        ),
    ] = None,
    page: Annotated[bool, Option("--page/--no-page", help="Serve a web page at / as well.")] = True,
    mcp: Annotated[
        bool, Option("--mcp", help="Serve tools for assistants at /mcp (Model Context Protocol).")
    ] = False,
    engine: Annotated[
        Literal["uvicorn", "ray"],
        Option(help="What runs the application: this process, or replicas of Ray Serve."),
    ] = "uvicorn",
    replicas: Annotated[int, Option(metavar="N", min=1, help="Replicas of Ray Serve.")] = 1,
    host: Annotated[
        str, Option(metavar="ADDRESS", help="Listen here; 0.0.0.0 for all networks.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    max_batch_tokens: Annotated[
        int, Option(metavar="N", min=1, help="Tokens that a model sees at once.")
    ] = 16_384,
    max_concurrent_requests: Annotated[
        int, Option(metavar="N", min=1, help="Requests that may wait; more are refused (429).")
    ] = 512,
    max_client_batch_size: Annotated[
        int, Option(metavar="N", min=1, help="Inputs of one request.")
    ] = 256,
    max_body_bytes: Annotated[int, Option(metavar="N", min=1, help="Bytes of a request.")] = 32
    * 2**20,
    request_seconds: Annotated[
        float, Option(metavar="S", min=0.001, help="Longest time of an answer.")
    ] = 300,
    api_keys: Annotated[
        Path | None,
        Option(metavar="FILE", help="Only for clients with a token, a line each, of this file."),
    ] = None,
    client_requests_per_minute: Annotated[
        int, Option(metavar="N", min=0, help="Requests of one client; 0 for any number.")
    ] = 0,
    allow_host: Annotated[
        list[str] | None,
        Option(metavar="HOST", help="Fetch media that requests name from this host."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        Option(metavar="ORIGIN", help="Pages of this origin may call the service (CORS)."),
    ] = None,
    isolate: Annotated[
        bool,
        Option(
            "--isolate/--no-isolate",
            help="Decode media in a child process, which may crash.",
        ),
    ] = True,
    device: Device = "auto",
) -> Results:
    """Serve models over HTTP: a web page, endpoints of OpenAI's and Cohere's clients, and own ones.

    Ctrl-C and SIGTERM stop the service after it has answered what it accepted.
    """
    from skillweave.config.reading import read_lines
    from skillweave.serving import require_serving

    require_serving(page, mcp)
    if replicas > 1 and engine != "ray":
        raise sw.ConfigError("--replicas needs --engine ray; give it, or leave both out")
    if replicas > 1 and page:
        raise sw.ConfigError(
            f"the page keeps what it does in one process, and there are {replicas} replicas; add"
            " --no-page, or leave --replicas out"
        )
    from fastapi import FastAPI

    from skillweave.reporting.terminal import progress
    from skillweave.serving.app import build_app
    from skillweave.serving.collections import Collections, open_collections
    from skillweave.serving.models import Models
    from skillweave.serving.server import listen, run
    from skillweave.serving.settings import ServiceConfig

    started()
    keys = [line.strip() for line in read_lines(api_keys, "--api-keys")] if api_keys else []
    if api_keys and not any(keys):
        raise sw.ConfigError(f"{api_keys}: holds no token; write one a line")
    settings = ServiceConfig(
        host=host,
        port=port,
        max_batch_tokens=max_batch_tokens,
        max_concurrent_requests=max_concurrent_requests,
        max_client_batch_size=max_client_batch_size,
        max_body_bytes=max_body_bytes,
        request_seconds=request_seconds,
        api_keys=tuple(filter(None, keys)),
        client_requests_per_minute=client_requests_per_minute,
        allowed_hosts=tuple(host.lower() for host in allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        isolate=isolate,
    )

    def build(step: Any = None) -> tuple[FastAPI, Models]:
        opened = Models(models, settings, tasks, device)
        collections = Collections()
        if data is not None:
            collections = open_collections(next(iter(opened)), data, step)
        return build_app(opened, collections, page, mcp), opened

    if engine == "ray":
        from skillweave.serving import ray_serve

        ray_serve.require_ray()
        ray_serve.run(lambda: build()[0], settings, replicas)
        return {"host": host, "port": port}
    bound = listen(host, port)
    with progress() as step:
        app, opened = build(step)
    address = bound.getsockname()[:2]
    run(app, opened, settings, bound)
    return {"models": [model.name for model in opened], "host": address[0], "port": address[1]}

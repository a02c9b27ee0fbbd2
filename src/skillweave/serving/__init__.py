"""Saved models as a service: HTTP endpoints of clients that exist, and a web page."""

from importlib.util import find_spec

from skillweave.config.errors import ConfigError

REQUIRED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpx")


def require_serving(page: bool = True, tools: bool = False) -> None:
    """Raises ConfigError where a library of the extra `serve` is absent. `page`: whether the web
    page is served as well, `tools`: whether tools over the Model Context Protocol are."""
    if tools and find_spec("mcp") is None:
        raise ConfigError("--mcp needs mcp; install it with: pip install 'skillweave[mcp]'")
    wanted = (*REQUIRED, "gradio") if page else REQUIRED
    if missing := [name for name in wanted if find_spec(name) is None]:
        raise ConfigError(
            f"serving needs {', '.join(missing)}; install what is missing with:"
            " pip install 'skillweave[serve]'"
        )

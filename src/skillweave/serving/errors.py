"""Faults of a request, each with the status that tells it to a client."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class RequestError(Exception):
    """A request that is not answered. `status`: of HTTP. `code`: a word for programs."""

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class NotFound(RequestError):
    """A model or task that is not served."""

    status, code = 404, "not_found"


class Unauthorized(RequestError):
    """A request without a token that is known."""

    status, code = 401, "invalid_api_key"

    def __init__(self) -> None:
        super().__init__(
            "give a token that this service knows: Authorization: Bearer TOKEN",
            {"www-authenticate": 'Basic realm="skillweave", Bearer'},
        )


class BodyTooSlow(RequestError):
    """A body that did not arrive in time."""

    status, code = 408, "body_timeout"


class BodyTooLarge(RequestError):
    """A body of more bytes than are read."""

    status, code = 413, "body_too_large"


class Overloaded(RequestError):
    """More work than can wait. `seconds`: after which it is worth to ask again."""

    status, code = 429, "overloaded"

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, {"retry-after": str(max(1, round(seconds)))})


class Unavailable(RequestError):
    """No answer in time, or a service that stops."""

    status, code = 503, "unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, {"retry-after": "1"})


class ErrorDetail(BaseModel):
    """What went wrong, as OpenAI's clients read it."""

    message: str
    type: str
    code: str
    param: str | None = None


class ErrorBody(BaseModel):
    """The body of every error. `message` is what Cohere's clients read."""

    error: ErrorDetail
    message: str


STATUSES: tuple[int, ...] = (400, 401, 404, 408, 413, 422, 429, 500, 503)
"""Statuses of errors that any endpoint may answer."""
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": "an error"} for status in STATUSES
}


def error_body(message: str, code: str, status: int, param: str | None = None) -> dict[str, Any]:
    """The body of an error. What UTF-8 cannot express, such as half a surrogate pair that a client
    sent, is written as an escape."""
    message = message.encode("utf-8", "backslashreplace").decode()
    param = param and param.encode("utf-8", "backslashreplace").decode()
    kind = "server_error" if status >= 500 else "invalid_request_error"
    detail = ErrorDetail(message=message, type=kind, code=code, param=param)
    return ErrorBody(error=detail, message=message).model_dump()

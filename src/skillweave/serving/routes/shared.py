"""What endpoints share: the models, and what is told of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from skillweave.data.processors import BadInput
from skillweave.serving.content import Input, read_input
from skillweave.serving.errors import RequestError
from skillweave.serving.models import Models, ServedModel, Usage
from skillweave.serving.settings import ServiceConfig


def _models(request: Request) -> Models:
    return request.app.state.models


ServedModels = Annotated[Models, Depends(_models)]


class Call:
    """One request: what it costs, told in its headers and in the log."""

    def __init__(self, request: Request, response: Response) -> None:
        self.usage = Usage()
        self.about: dict[str, Any] = request.state.about
        self.response = response

    def begin(self, model: ServedModel, inputs: int) -> None:
        """Tell what is asked for. Raises RequestError for too many inputs."""
        most = model.settings.max_client_batch_size
        if inputs > most:
            raise RequestError(f"{inputs:,} inputs, at most {most:,} are taken; send them in parts")
        self.about |= {"model": model.name, "inputs": inputs}

    def end(self) -> Usage:
        """Tell what it cost."""
        self.about["task"] = self.usage.task
        self.about["tokens"] = self.usage.tokens
        self.about["inference_milliseconds"] = round(1000 * self.usage.inference_seconds, 1)
        self.response.headers.update(self.usage.headers())
        return self.usage


Called = Annotated[Call, Depends()]


def read_all(inputs: Sequence[Input], settings: ServiceConfig) -> list[tuple[str, Any]]:
    """Modality and value of each input. Raises RequestError that names the one at fault."""
    found = []
    for number, value in enumerate(inputs):
        try:
            found.append(read_input(value, settings))
        except BadInput as error:
            raise RequestError(f"input {number}: {error}") from None
    return found

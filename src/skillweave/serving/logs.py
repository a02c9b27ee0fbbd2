"""Logs as lines of JSON. What clients send stands in them as JSON strings, so that it can neither
begin a line nor move a cursor."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

LOGGER = logging.getLogger("skillweave.serving")
LONGEST = 300
"""Characters of a value that a client sent."""


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record: time (UTC), level, event, and the fields of `log`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage()[:LONGEST],
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # ASCII alone


def set_up_logs() -> None:
    """Write the logs of the service and of its server to standard error."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("skillweave.serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name != "uvicorn.error" else logging.WARNING)


def log(event: str, level: int = logging.INFO, exc_info: Any = None, **fields: Any) -> None:
    """Write a line. Long strings are cut."""
    cut = {n: x[:LONGEST] if isinstance(x, str) else x for n, x in fields.items()}
    LOGGER.log(level, event, exc_info=exc_info, extra={"fields": cut})

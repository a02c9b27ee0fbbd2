"""Errors that a person can act on, and the one place where a fault of a file becomes one."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A configuration that cannot be used; the message lists every fault with its path and a
    remedy."""

    exit_status = 2


@contextmanager
def reading(where: object, what: str, error: type[ValueError] = ConfigError) -> Generator[None]:
    """Tell a fault of a file's contents as one `error`: `WHERE: not WHAT: FAULT`.

    Inside the block a parser reads what others wrote, and damaged contents can make it raise
    anything, also a panic of a Rust library. Errors of this package pass; those that do not name
    `where` get its name. So do errors of the operating system that name a file.
    """
    try:
        yield
    except BaseException as fault:
        if type(fault) in (ConfigError, error):
            if str(where) in str(fault):
                raise
            raise type(fault)(f"{where}: {fault}") from fault
        told = hasattr(fault, "exit_status") or getattr(fault, "filename", None) is not None
        if told or not (isinstance(fault, Exception) or type(fault).__name__ == "PanicException"):
            raise
        raise error(f"{where}: not {what}: {describe(fault)}") from fault


def describe(fault: BaseException) -> str:
    """A fault in a line: its message, with its kind where the message alone says little."""
    if isinstance(fault, UnicodeDecodeError):
        line = fault.object.count(b"\n", 0, fault.start) + 1
        byte = fault.object[fault.start]
        return (
            f"line {line}: byte 0x{byte:02x} is not {fault.encoding.upper()}; save the file as"
            f" UTF-8{' (it may be GBK)' if byte > 0x80 else ''}"
        )
    if isinstance(fault, RecursionError | MemoryError):
        return "it is nested too deeply, or too large"
    message = " ".join(str(fault).split())[:300]
    if type(fault) in (ValueError, json.JSONDecodeError):
        return message
    return f"{type(fault).__name__} {message}"

"""The command line."""

from skillweave.cli.app import main

__all__ = ["main"]

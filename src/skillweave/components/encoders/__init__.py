"""Encoders by name."""

from skillweave.components.encoders.transformer import TransformerEncoder

ENCODERS = {"transformer": TransformerEncoder}

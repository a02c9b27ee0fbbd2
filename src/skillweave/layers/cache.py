"""What attention keeps of earlier tokens, so that each new token is encoded once.

Shape letters: N samples, H heads of keys, C tokens so far, L new tokens, d width of a head.
"""

from __future__ import annotations

from torch import Tensor, nn

BLOCK = 64
"""Memory grows by at least this many tokens at once."""


class KeyValues:
    """The keys and values [N, H, C, d] of a layer's tokens so far. Room grows by half of itself, so
    a token is seldom copied."""

    def __init__(self) -> None:
        self.length = 0
        self._room: list[Tensor] = []

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of new tokens [N, H, L, d]. Returns all so far."""
        begin, self.length = self.length, self.length + key.shape[2]
        if not begin:
            self._room = [key, value]
            return key, value
        if self.length > self._room[0].shape[2]:
            self._room = [self._enlarged(x, begin) for x in self._room]
        for room, added in zip(self._room, (key, value), strict=True):
            room[:, :, begin : self.length] = added
        key, value = (room[:, :, : self.length] for room in self._room)
        return key, value

    def select(self, rows: Tensor) -> None:
        """Keep these samples, in this order; one may stand several times."""
        self._room = [x.index_select(0, rows) for x in self._room]

    def copied(self) -> KeyValues:
        """The same tensors under an object of its own; `select` makes them its own as well."""
        other = KeyValues()
        other.length, other._room = self.length, list(self._room)
        return other

    @property
    def bytes_per_token(self) -> int:
        """Memory that a token of a sample takes."""
        return sum(x[0, :, 0].nbytes for x in self._room)

    def _enlarged(self, x: Tensor, filled: int) -> Tensor:
        count, heads, _, size = x.shape
        larger = x.new_empty(count, heads, self.length + max(BLOCK, self.length // 2), size)
        larger[:, :, :filled] = x[:, :, :filled]
        return larger


class LayerCache:
    """What one layer keeps. `own`: keys and values of self-attention, with those of prompts before
    the first token. `cross`: keys and values of the memory that it attends to. `pooled`: by route,
    the vectors [N, D] of the samples' contexts. `states`: of recurrent layers,
    each [layers, N, D]."""

    def __init__(self) -> None:
        self.own = KeyValues()
        self.cross: tuple[Tensor, Tensor] | None = None
        self.pooled: dict[nn.Module, Tensor] = {}
        self.states: Tensor | tuple[Tensor, Tensor] | None = None

    def copied(self) -> LayerCache:
        """The same tensors under an object of its own; `select` makes them its own as well."""
        other = LayerCache()
        other.own, other.cross, other.states = self.own.copied(), self.cross, self.states
        other.pooled = dict(self.pooled)
        return other

    def select(self, rows: Tensor) -> None:
        """Keep these samples, in this order; one may stand several times."""
        self.own.select(rows)
        if self.cross is not None:
            key, value = self.cross
            self.cross = key.index_select(0, rows), value.index_select(0, rows)
        if isinstance(self.states, Tensor):
            self.states = self.states.index_select(1, rows)
        elif self.states is not None:
            hidden, cell = self.states
            self.states = hidden.index_select(1, rows), cell.index_select(1, rows)
        self.pooled = {route: x.index_select(0, rows) for route, x in self.pooled.items()}

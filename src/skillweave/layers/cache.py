"""What attention keeps of earlier tokens, so that each new token is encoded once.

Shape letters: N samples, H heads of keys, C tokens so far, L new tokens, d width of a head.
"""

from __future__ import annotations

from copy import copy

import torch
import torch.nn.functional as F
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

    def drop(self, count: int) -> None:
        """Forget the last tokens."""
        self.length -= count

    def select(self, rows: Tensor) -> None:
        """Keep these samples, in this order; one may stand several times."""
        self._room = [self._selected(x, rows) for x in self._room]

    def copied(self) -> KeyValues:
        """The same tensors under an object of its own; `select` makes them its own as well."""
        other = copy(self)
        other._room = list(self._room)
        return other

    def fixed(self, filled: Tensor, so_far: int, size: int) -> KeyValues:
        """The same in room for `size` tokens: see `FixedKeyValues`. `so_far`: tokens that `filled`
        counts; others are prompts before them."""
        return FixedKeyValues(self, filled, so_far, size)

    @property
    def bytes_per_token(self) -> int:
        """Memory that a token of a sample takes."""
        return sum(x[0, :, 0].nbytes for x in self._room)

    def _selected(self, x: Tensor, rows: Tensor) -> Tensor:
        """The tokens of these samples, with room for one more. A beam search copies them at each
        token, so the rest of the room is left behind."""
        _, heads, _, size = x.shape
        chosen = x.new_empty(len(rows), heads, self.length + 1, size)
        torch.index_select(x[:, :, : self.length], 0, rows, out=chosen[:, :, : self.length])
        return chosen

    def _enlarged(self, x: Tensor, filled: int) -> Tensor:
        count, heads, _, size = x.shape
        larger = x.new_empty(count, heads, self.length + max(BLOCK, self.length // 2), size)
        larger[:, :, :filled] = x[:, :, :filled]
        return larger


class FixedKeyValues(KeyValues):
    """Keys and values that always have room for as many tokens, so that each later token is read
    with tensors of the same shapes, in the same memory. What is beyond those so far is zeros.

    `filled`: [1] the number of tokens so far. The owner of all layers' keys and values changes it.
    """

    def __init__(self, given: KeyValues, filled: Tensor, so_far: int, size: int) -> None:
        super().__init__()
        self.length, self.filled, self.before = given.length, filled, given.length - so_far
        more = size - so_far
        used = (x[:, :, : self.length] for x in given._room)
        self._room = [F.pad(x, (0, 0, 0, more)).contiguous() for x in used]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put those of new tokens [N, H, L, d] after those so far. Returns all, with the room after
        them."""
        count = torch.arange(key.shape[2], device=key.device)
        places_L = self.before + self.filled + count
        for room, added in zip(self._room, (key, value), strict=True):
            room.index_copy_(2, places_L, added)
        key, value = self._room
        return key, value

    def drop(self, count: int) -> None:
        """Nothing: see `filled`."""

    def _selected(self, x: Tensor, rows: Tensor) -> Tensor:
        return x.index_select(0, rows)


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
        return self._with(self.own.copied())

    def fixed(self, filled: Tensor, so_far: int, size: int) -> LayerCache:
        """The same with keys and values in room for `size` tokens: see `KeyValues.fixed`."""
        other = self._with(self.own.fixed(filled, so_far, size))
        if self.cross is not None:  # as `select` gives them: other strides are compiled again
            key, value = self.cross
            other.cross = key.contiguous(), value.contiguous()
        return other

    def _with(self, own: KeyValues) -> LayerCache:
        other = copy(self)
        other.own, other.pooled = own, dict(self.pooled)
        return other

    def select(self, rows: Tensor) -> None:
        """Keep these samples, in this order; one may stand several times."""
        self.select_written(rows)
        if self.cross is not None:
            key, value = self.cross
            self.cross = key.index_select(0, rows), value.index_select(0, rows)
        self.pooled = {route: x.index_select(0, rows) for route, x in self.pooled.items()}

    def select_written(self, rows: Tensor) -> None:
        """As `select`, where each row has the same memory and context as before."""
        self.own.select(rows)
        if isinstance(self.states, Tensor):
            self.states = self.states.index_select(1, rows)
        elif self.states is not None:
            hidden, cell = self.states
            self.states = hidden.index_select(1, rows), cell.index_select(1, rows)

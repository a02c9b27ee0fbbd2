"""Text that a model writes token by token: what it keeps between two tokens.

Shape letters: N samples, C tokens so far, L new tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.batch import Condition
from skillweave.components.encoders.base import EncoderWeights
from skillweave.config import ConfigError
from skillweave.layers.attention import Memory
from skillweave.layers.cache import LayerCache
from skillweave.layers.tokens import Past, TokenMap

ROOM = 256
"""A state of fixed length has room for a multiple of this many tokens, so that there are few
lengths to compile."""


@dataclass
class DecodingState:
    """What is known after some tokens: give it to `Model.step` with the next ones.

    `logits`: [N, V] of the next token. `hidden`: [N, L, D] the outputs for the L tokens that were
    read last; arbitrary at padding. `condition`: of the span that is written, `segment` its
    number and `weights` its resolved experts. `memory`: what a decoder attends to. `lengths`:
    [1 or N] tokens so far, without padding. `starts`: [1 or N] the position of the next token in
    its modality. `positions`: [1 or N, C] of the tokens so far. `valid`: [N, C] False for padding;
    None without. `caches`: keys and values of each layer. They are extended in place: a state is
    used once. `prefilled`: C before the first token was written.
    """

    condition: Condition
    segment: int
    weights: EncoderWeights
    memory: Memory | None
    caches: list[LayerCache]
    prefilled: int
    lengths: Tensor
    starts: Tensor
    positions: Tensor
    valid: Tensor | None
    logits: Tensor
    hidden: Tensor

    @property
    def samples(self) -> int:
        """N."""
        return len(self.logits)

    def reorder(self, rows: Tensor) -> None:
        """Keep these samples [M], in this order. One may stand several times, as beams of a
        sample."""
        if len(rows) == self.samples and rows.tolist() == list(range(len(rows))):
            return
        self._select(rows)

    def reorder_beams(self, rows: Tensor) -> None:
        """As `reorder`, where each row takes the place of one of the same sample, before the next
        tokens are read: what they share is not copied. `logits` and `hidden` stay as they are."""
        if rows.tolist() != list(range(len(rows))):
            for cache in self.caches:
                cache.select_written(rows)

    def copied(self, rows: Tensor) -> DecodingState:
        """These samples [M] as a state of their own; this one can be used again."""
        other = replace(self, caches=[cache.copied() for cache in self.caches])
        other._select(rows)
        return other

    def fixed(self, more: int) -> FixedState:
        """The same tokens with room for `more`: see `FixedState`. Raises ConfigError for recurrent
        layers, which have no keys and values."""
        if not self.droppable:
            raise ConfigError(
                "cache_implementation static: recurrent layers keep states of one size anyway;"
                " leave it out"
            )
        so_far = self.positions.shape[1]
        size = -(-(so_far + more) // ROOM) * ROOM
        filled = torch.tensor([so_far], device=self.lengths.device)
        caches = [cache.fixed(filled, so_far, size) for cache in self.caches]
        lengths, starts = self.lengths.clone(), self.starts.clone()
        positions = F.pad(self.positions.expand(len(lengths), -1), (0, size - so_far))
        valid = None if self.valid is None else F.pad(self.valid, (0, size - so_far), value=True)
        own = {"lengths": lengths, "starts": starts, "positions": positions, "valid": valid}
        given: dict[str, Any] = {**vars(self), **own, "caches": caches, "filled": filled}
        return FixedState(**given)

    def bytes_per_sample(self, more: int = 0) -> int:
        """Memory that the caches take for a sample and `more` tokens after it."""
        own = sum(cache.own.bytes_per_token for cache in self.caches)
        cross = sum(x.nbytes for cache in self.caches for x in cache.cross or ())
        return own * (self.positions.shape[1] + more) + cross // self.samples

    def _select(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.select(rows)
        self.logits, self.hidden = self.logits[rows], self.hidden[rows]
        self.valid = None if self.valid is None else self.valid[rows]
        if len(self.lengths) > 1:
            self.lengths = self.lengths[rows]
        if len(self.starts) > 1:
            self.starts = self.starts[rows]
        if len(self.positions) > 1:
            self.positions = self.positions[rows]
        if self.memory is not None:
            self.memory = _selected(self.memory, rows)

    @property
    def droppable(self) -> bool:
        """Whether `drop` can forget tokens: recurrent layers keep them all in one state."""
        return all(cache.states is None for cache in self.caches)

    def drop(self, count: int) -> None:
        """Forget the last tokens of each sample. `logits` stay as they are."""
        if not count:
            return
        kept = self.positions.shape[1] - count
        for cache in self.caches:
            cache.own.drop(count)
        self.lengths, self.starts = self.lengths - count, self.starts - count
        self.positions = self.positions[:, :kept]
        self.valid = None if self.valid is None else self.valid[:, :kept]

    def new_tokens(self, count: int) -> TokenMap:
        """The token map of so many further tokens of each sample."""
        samples, device = self.samples, self.lengths.device
        own_NL = self.lengths.unsqueeze(1) + torch.arange(count, device=device)
        return TokenMap(
            conditions=(self.condition,),
            sizes=(samples * count,),
            padded=(count,),
            samples=samples,
            length=count,
            index=None,
            mask=self._mask(count),
            lengths=torch.full((samples,), count),
            valid=None,
            first=(torch.arange(samples, device=device) * count,),
            context=torch.zeros(samples, count, dtype=torch.bool, device=device),
            past=Past(self.lengths, self._positions_with(own_NL), self.prefilled),
            caches=self.caches,
        )

    def extended(self, tokens: TokenMap, logits: Tensor, hidden: Tensor) -> None:
        """Count the tokens of a map among those so far. `logits`: [N, V] after them. `hidden`:
        [N, L, D] their outputs."""
        self.positions = tokens.key_positions(self.lengths.device)
        if self.valid is not None:
            self.valid = F.pad(self.valid, (0, tokens.length), value=True)
        self.lengths, self.starts = self.lengths + tokens.length, self.starts + tokens.length
        self.logits, self.hidden = logits, hidden

    def _positions_with(self, own_NL: Tensor) -> Tensor:
        """[1 or N, C + L] those of new tokens [1 or N, L] after those so far."""
        return torch.cat([self.positions.expand(len(own_NL), -1), own_NL], dim=1)

    def _mask(self, count: int) -> Tensor | None:
        """[1 or N, 1, L, C + L] what new tokens may attend to: all before them."""
        if self.valid is None and count == 1:
            return None
        device, so_far = self.lengths.device, self.positions.shape[1]
        valid = torch.ones(1, so_far, dtype=torch.bool, device=device)
        valid = valid if self.valid is None else self.valid
        own = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        own = own.expand(len(valid), -1, -1)
        return torch.cat([valid.unsqueeze(1).expand(-1, count, -1), own], dim=2).unsqueeze(1)


@dataclass
class FixedState(DecodingState):
    """A state whose tensors keep their shapes and their memory while tokens are added, so that
    `Model.step` is compiled once for all tokens (`torch.compile`).

    C is here the number of tokens that there is room for. `filled`: [1] how many there are so far.
    `positions`: arbitrary beyond these. `valid`: True beyond these.
    """

    filled: Tensor

    def copied(self, rows: Tensor) -> DecodingState:
        """Raises ConfigError: each sample has its room already."""
        raise ConfigError(
            "a state of fixed length is not copied; copy that which `fixed` began with"
        )

    def drop(self, count: int) -> None:
        """See `DecodingState`."""
        for x in (self.filled, self.lengths, self.starts):
            x -= count

    def extended(self, tokens: TokenMap, logits: Tensor, hidden: Tensor) -> None:
        """See `DecodingState`."""
        for x in (self.filled, self.lengths, self.starts):
            x += tokens.length
        self.logits, self.hidden = logits, hidden

    def _positions_with(self, own_NL: Tensor) -> Tensor:
        return self.positions.index_copy_(1, self._places(own_NL.shape[1]), own_NL)

    def _mask(self, count: int) -> Tensor:
        keys_C = torch.arange(self.positions.shape[1], device=self.lengths.device)
        before_LC = keys_C <= self._places(count).unsqueeze(1)
        return (
            before_LC[None, None] if self.valid is None else before_LC & self.valid[:, None, None]
        )

    def _places(self, count: int) -> Tensor:
        """[L] where new tokens stand among those that there is room for."""
        return self.filled + torch.arange(count, device=self.lengths.device)


def same_in_all(x_N: Tensor) -> Tensor:
    """[1] of numbers that are all equal, else [N]. On the host."""
    return x_N[:1] if bool((x_N == x_N[0]).all()) else x_N


def _selected(memory: Memory, rows: Tensor) -> Memory:
    """The memory of these samples. Its keys and values are cached, so only their mask counts."""
    tokens = memory.tokens
    valid = None if tokens.valid is None else tokens.valid[rows]
    return Memory(memory.hidden_TD, replace(tokens, samples=len(rows), valid=valid))

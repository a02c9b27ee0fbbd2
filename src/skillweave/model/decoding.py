"""Text that a model writes token by token: what it keeps between two tokens.

Shape letters: N samples, C tokens so far, L new tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.batch import Condition
from skillweave.components.encoders.base import EncoderWeights
from skillweave.layers.attention import Memory
from skillweave.layers.cache import LayerCache
from skillweave.layers.tokens import Past, TokenMap


@dataclass
class DecodingState:
    """What is known after some tokens: give it to `Model.step` with the next ones.

    `logits`: [N, V] of the next token. `hidden`: [N, L, D] the outputs for the L tokens that were
    read last; arbitrary at padding. `condition`: of the span that is written, `segment` its
    number and `weights` its resolved experts. `memory`: what a decoder attends to. `lengths`: [N]
    tokens so far, without padding. `starts`: [N] the position of the next token in its modality.
    `positions`: [1 or N, C] of the tokens so far. `valid`: [N, C] False for padding; None without.
    `caches`: keys and values of each layer. They are extended in place: a state is used once.
    `prefilled`: C before the first token was written.
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

    def reorder(self, rows: Tensor) -> None:
        """Keep these samples [M], in this order. One may stand several times, as beams of a
        sample."""
        if len(rows) == len(self.lengths) and rows.tolist() == list(range(len(rows))):
            return
        self._select(rows)

    def copied(self, rows: Tensor) -> DecodingState:
        """These samples [M] as a state of their own; this one can be used again."""
        other = replace(self, caches=[cache.copied() for cache in self.caches])
        other._select(rows)
        return other

    def bytes_per_sample(self, more: int = 0) -> int:
        """Memory that the caches take for a sample and `more` tokens after it."""
        own = sum(cache.own.bytes_per_token for cache in self.caches)
        cross = sum(x.nbytes for cache in self.caches for x in cache.cross or ())
        return own * (self.positions.shape[1] + more) + cross // len(self.lengths)

    def _select(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.select(rows)
        self.lengths, self.starts = self.lengths[rows], self.starts[rows]
        self.logits, self.hidden = self.logits[rows], self.hidden[rows]
        self.valid = None if self.valid is None else self.valid[rows]
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
            cache.own.length -= count
        self.lengths, self.starts = self.lengths - count, self.starts - count
        self.positions = self.positions[:, :kept]
        self.valid = None if self.valid is None else self.valid[:, :kept]

    def new_tokens(self, count: int) -> TokenMap:
        """The token map of so many further tokens of each sample."""
        samples, device = len(self.lengths), self.lengths.device
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
            past=Past(self.lengths, self.positions, self.prefilled),
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


def _selected(memory: Memory, rows: Tensor) -> Memory:
    """The memory of these samples. Its keys and values are cached, so only their mask counts."""
    tokens = memory.tokens
    valid = None if tokens.valid is None else tokens.valid[rows]
    return Memory(memory.hidden_TD, replace(tokens, samples=len(rows), valid=valid))

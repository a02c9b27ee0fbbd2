"""Recurrent encoders and decoders: RNN, LSTM and GRU (TencentPretrain section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skillweave.components.encoders.base import SequentialEncoder
from skillweave.config import ConfigError
from skillweave.config.encoder import LSTMConfig, RecurrentConfig
from skillweave.layers.attention import CrossAttention, Heads, Memory
from skillweave.layers.cache import LayerCache
from skillweave.layers.sparse import Known
from skillweave.layers.tokens import TokenMap, back_in_place

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentEncoder(SequentialEncoder):
    """Recurrent layers over the tokens of a pass, in order, across its spans and without padding.

    Two directions share the width. With `separate` directions (ELMo, arXiv 1802.05365, section 3.1)
    two stacks are concatenated after the last layer.
    """

    def __init__(self, config: RecurrentConfig, width: int, known: Known) -> None:
        super().__init__()
        size = config.state_size(width)
        options: dict[str, Any] = {
            "input_size": config.input_size or width,
            "hidden_size": size,
            "num_layers": config.layers,
            "batch_first": True,
            "dropout": config.dropout if config.layers > 1 else 0.0,
            "bidirectional": config.direction == "bidirectional",
        }
        if isinstance(config, LSTMConfig) and config.cell_size:
            options |= {"hidden_size": config.cell_size, "proj_size": size}
        stacks = 2 if config.direction == "separate" else 1
        self.stacks = nn.ModuleList(CELLS[config.name](**options) for _ in range(stacks))
        self.dropout = nn.Dropout(config.dropout)

    def new_caches(self) -> list[LayerCache]:
        """One cache, of the states of all layers. Raises ConfigError for two directions."""
        if len(self.stacks) > 1 or self.stacks[0].bidirectional:
            raise ConfigError("an encoder that reads in two directions writes no text")
        return [LayerCache()]

    def read(self, x_TD: Tensor, tokens: TokenMap, memory: Memory | None) -> Tensor:
        """See `SequentialEncoder`."""
        x_NLD = tokens.to_padded(x_TD)
        parts = [_read(stack, x_NLD, tokens, backward=i > 0) for i, stack in enumerate(self.stacks)]
        return tokens.to_tokens(self.dropout(torch.cat(parts, dim=-1)))


class RecurrentDecoder(RecurrentEncoder):
    """A recurrent encoder whose states attend to a memory: tanh(W [context; state]) (Luong et al.,
    arXiv 1508.04025, eq. 5)."""

    def __init__(self, config: RecurrentConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        self.attention = CrossAttention(Heads(1, 1, width), width)
        self.combination = nn.Linear(2 * width, width)

    def read(self, x_TD: Tensor, tokens: TokenMap, memory: Memory | None) -> Tensor:
        """See `SequentialEncoder`. Raises ValueError without a memory."""
        if memory is None:
            raise ValueError("a decoder needs the encoder's output to attend to")
        if tokens.caches:
            tokens = replace(tokens, cache=tokens.caches[0])
        states_TD = super().read(x_TD, tokens, memory)
        context_TD = self.attention(states_TD, tokens, memory)
        return torch.tanh(self.combination(torch.cat([context_TD, states_TD], dim=-1)))


def _read(stack: nn.Module, x_NLD: Tensor, tokens: TokenMap, backward: bool) -> Tensor:
    """The output of a stack that reads the tokens forward or backward, at the positions of the
    tokens; zeros at padding."""
    x_NLD, order = tokens.in_order(x_NLD, backward)
    given = pack_padded_sequence(x_NLD, tokens.lengths, batch_first=True, enforce_sorted=False)
    cache = tokens.caches[0] if tokens.caches else LayerCache()
    read, cache.states = stack(given, cache.states)
    read_NLD, _ = pad_packed_sequence(read, batch_first=True, total_length=tokens.length)
    return back_in_place(read_NLD, order)

"""Recurrent encoders and decoders: RNN, LSTM and GRU (TencentPretrain section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skillweave.components.encoders.base import Encoder, EncoderWeights
from skillweave.config.encoder import LSTMConfig, RecurrentConfig
from skillweave.layers.attention import CrossAttention, Heads, Memory
from skillweave.layers.sparse import Known, RouteStatistics
from skillweave.layers.tokens import TokenMap, back_in_place

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentEncoder(Encoder):
    """Recurrent layers over the true tokens of a pass, in their order over all its spans.

    Both directions share the width. With `separate` directions (ELMo, arXiv 1802.05365, section
    3.1) two stacks are concatenated after the last layer.
    """

    def __init__(self, config: RecurrentConfig, width: int, known: Known) -> None:
        super().__init__()
        self.blocks = ()
        size = config.state_size(width)
        options = {"hidden_size": size}
        if isinstance(config, LSTMConfig) and config.cell_size:
            options = {"hidden_size": config.cell_size, "proj_size": size}
        between = config.dropout if config.layers > 1 else 0.0
        self.stacks = nn.ModuleList(
            CELLS[config.name](
                input_size=config.input_size or width,
                num_layers=config.layers,
                batch_first=True,
                dropout=between,
                bidirectional=config.direction == "bidirectional",
                **options,
            )
            for _ in range(2 if config.direction == "separate" else 1)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[EncoderWeights],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """See `Encoder`."""
        x_NLD = tokens.to_padded(x_TD)
        parts = [_read(stack, x_NLD, tokens, backward=i > 0) for i, stack in enumerate(self.stacks)]
        return tokens.to_tokens(self.dropout(torch.cat(parts, dim=-1))), []


class RecurrentDecoder(RecurrentEncoder):
    """A recurrent encoder whose states attend to a memory: tanh(W [context; state]) (Luong et al.,
    arXiv 1508.04025, eq. 5)."""

    def __init__(self, config: RecurrentConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        self.attention = CrossAttention(Heads(1, 1, width), width)
        self.combination = nn.Linear(2 * width, width)

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[EncoderWeights],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """See `Encoder`. Raises ValueError without a memory."""
        if memory is None:
            raise ValueError("a decoder needs the encoder's output to look at")
        states_TD, statistics = super().forward(x_TD, tokens, weights, generator)
        context_TD = self.attention(states_TD, tokens, memory)
        return torch.tanh(self.combination(torch.cat([context_TD, states_TD], dim=-1))), statistics


def _read(stack: nn.Module, x_NLD: Tensor, tokens: TokenMap, backward: bool) -> Tensor:
    """The outputs of a stack for the true tokens, which it reads from the first or (`backward`)
    from the last; zeros elsewhere."""
    x_NLD, order = tokens.in_order(x_NLD, backward)
    given = pack_padded_sequence(x_NLD, tokens.lengths, batch_first=True, enforce_sorted=False)
    read_NLD, _ = pad_packed_sequence(stack(given)[0], batch_first=True, total_length=tokens.length)
    return back_in_place(read_NLD, order)

"""The gated convolutional network (Dauphin et al., arXiv 1612.08083)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.encoders.base import SequentialEncoder
from skillweave.config.encoder import GatedCNNConfig
from skillweave.layers.attention import Memory
from skillweave.layers.sparse import Known
from skillweave.layers.tokens import TokenMap, back_in_place


class GatedCNNEncoder(SequentialEncoder):
    """Layers (X * W + b) ⊗ σ(X * V + c) (eq. 1) of causal convolutions.

    After the first layer, every `block_layers` layers are a block whose input is added to its
    output (section 2, Table 1).
    """

    def __init__(self, config: GatedCNNConfig, width: int, known: Known) -> None:
        super().__init__()
        self.kernel_size, self.block_layers = config.kernel_size, config.block_layers
        sizes = [config.input_size or width, *[width] * (config.layers - 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(size, 2 * width, config.kernel_size) for size in sizes
        )
        self.dropout = nn.Dropout(config.dropout)

    def read(self, x_TD: Tensor, tokens: TokenMap, memory: Memory | None) -> Tensor:
        """See `SequentialEncoder`."""
        x_NLD, order = tokens.in_order(tokens.to_padded(x_TD))
        x_NDL = before_NDL = x_NLD.transpose(1, 2)
        for layer, convolution in enumerate(self.convolutions):
            x_NDL = F.glu(convolution(F.pad(x_NDL, (self.kernel_size - 1, 0))), dim=1)
            if layer % self.block_layers == 0:
                x_NDL = before_NDL = x_NDL + before_NDL if layer else x_NDL
        return tokens.to_tokens(back_in_place(self.dropout(x_NDL.transpose(1, 2)), order))

"""Tensor parallelism: the processes of a group share the attention heads and the inner vectors of
feed-forwards, and train on the same samples (Megatron-LM, arXiv 1909.08053), with PyTorch's
`parallelize_module`. Everything else is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.utils import parametrize

from skillweave.config import ConfigError
from skillweave.layers.attention import CrossAttention, Heads, HeadShare, SelfAttention
from skillweave.layers.block import Block
from skillweave.layers.feed_forward import FeedForward
from skillweave.layers.position import RelativeBias2d, T5Bias
from skillweave.layers.sparse import ConditionalFeedForward, Linear, SparseFeedForward
from skillweave.layers.sparse.tensor_split import ColumnSplit, RowSplit
from skillweave.training.tensor_parts import is_divided


class SharedLayers:
    """The Transformer blocks of a model, divided among the processes of a mesh with one axis.

    `divided`: names of the parameters of which each process has a part. `partial`: of those that
    all have, and each uses for its own heads: the sum of their gradients is the gradient. `order`:
    name → [rows] the rows of a parameter that is several projections, in the order in which they
    are divided.

    Raises ConfigError for a model that cannot be divided.
    """

    def __init__(self, model: nn.Module, mesh: DeviceMesh) -> None:
        self.mesh, self.count = mesh, mesh.size()
        self.partial: set[str] = set()
        self.order: dict[str, Tensor] = {}
        self._plan: dict[str, ParallelStyle] = {}
        blocks = {path: one for path, one in model.named_modules() if isinstance(one, Block)}
        if not blocks:
            raise ConfigError(
                "training.parallel.tensor: the model has no Transformer, whose heads could be"
                " shared; leave it out"
            )
        for path, block in blocks.items():
            self._self_attention(f"{path}.attention", block.attention)
            if block.cross is not None:
                self._cross_attention(f"{path}.cross.attention", block.cross.attention)
            self._feed_forward(f"{path}.feed_forward", block.feed_forward)
        for path, module in model.named_modules():
            if isinstance(module, T5Bias | RelativeBias2d):
                self._add_partial(path, module)
        parallelize_module(model, mesh, self._plan, src_data_rank=None)
        self.divided = {
            name
            for name, parameter in model.named_parameters()
            if is_divided(parameter) and cast(DTensor, parameter).placements[0].is_shard()
        }

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        """A parameter or a tensor of the optimizer for it, with its rows in the model's order."""
        return self._reordered(name, tensor, inverse=True)

    def loaded(self, name: str, tensor: Tensor) -> Tensor:
        """The inverse of `stored`."""
        return self._reordered(name, tensor, inverse=False)

    def _reordered(self, name: str, tensor: Tensor, inverse: bool) -> Tensor:
        order = self.order.get(name)
        if order is None or not tensor.ndim:
            return tensor
        order = (order.argsort() if inverse else order).to(tensor.device)
        if not is_divided(tensor):
            return tensor[order]
        divided = cast(DTensor, tensor.detach())
        return distribute_tensor(
            divided.full_tensor()[order],
            divided.device_mesh,
            divided.placements,
            src_data_rank=None,
        )

    def _self_attention(self, path: str, attention: SelfAttention) -> None:
        if attention.gate is not None:
            raise ConfigError(
                f"training.parallel.tensor: {path} has gated biases (WavLM), which cannot be"
                " divided; leave it out"
            )
        self._require_heads(path, attention.heads)
        self._divide(f"{path}.qkv", attention.qkv, attention.fused)
        self._divide(f"{path}.output", attention.output)
        for name in ("query_norm", "key_norm"):
            if (norm := getattr(attention, name)) is not None:
                self._add_partial(f"{path}.{name}", norm)
        if attention.bias is not None:
            self.partial.add(f"{path}.bias")
        self._share_heads(attention)

    def _cross_attention(self, path: str, attention: CrossAttention) -> None:
        self._require_heads(path, attention.heads)
        self._divide(f"{path}.query", attention.query, {attention.query: attention.heads.sizes[:1]})
        self._divide(f"{path}.key_value", attention.key_value, attention.fused)
        self._divide(f"{path}.output", attention.output)
        if attention.value_bias is not None:
            self.partial.add(f"{path}.value_bias")
        self._share_heads(attention)

    def _require_heads(self, path: str, heads: Heads) -> None:
        if heads.queries % self.count or heads.keys % self.count:
            told = f"{heads.queries} attention heads"
            if heads.keys != heads.queries:
                told += f" with {heads.keys} heads of keys and values"
            raise ConfigError(
                f"training.parallel.tensor: {self.count} processes cannot share the {told} of"
                f" {path} equally; give a number that divides them, or change the number of heads"
            )

    def _share_heads(self, attention: SelfAttention | CrossAttention) -> None:
        heads = attention.heads
        attention.share = HeadShare(self.mesh.get_local_rank(), self.count)
        attention.heads = heads._replace(
            queries=heads.queries // self.count, keys=heads.keys // self.count
        )

    def _feed_forward(self, path: str, module: ConditionalFeedForward | SparseFeedForward) -> None:
        experts: dict[str, FeedForward | SparseFeedForward] = {}
        if isinstance(module, SparseFeedForward):
            experts[f"{path}.experts.shared"] = module
        else:
            for name, one in module.experts.items():
                experts[f"{path}.experts.{name}"] = cast(FeedForward, one)
        for name, expert in experts.items():
            inner, outer = expert.layers
            self._divide(f"{name}.inner", inner, expert.fused or {inner: [inner.out_features]})
            self._divide(f"{name}.outer", outer)

    def _divide(
        self, path: str, layer: Linear, fused: Mapping[nn.Module, Sequence[int]] | None = None
    ) -> None:
        """Divide a layer or a bank by rows of its weights [out, in], of each of the projections
        that it is; without `fused`, by columns."""
        linears: dict[str, nn.Linear] = {}
        if isinstance(layer, nn.Linear):
            linears[path] = layer
        else:
            layer.split = RowSplit(self.mesh) if fused is None else ColumnSplit(self.mesh)
            linears = {f"{path}.experts.{name}": one for name, one in layer.experts.items()}
        for name, linear in linears.items():
            if parametrize.is_parametrized(linear):
                raise ConfigError(
                    "training.parallel.tensor: layers with low-rank changes cannot be divided;"
                    " leave it out, or use another tuning.method than lora"
                )
            self._plan[name] = RowwiseParallel() if fused is None else ColwiseParallel()
            if fused is not None:
                self._set_order(name, linear, fused[layer])

    def _set_order(self, path: str, linear: nn.Linear, rows: Sequence[int]) -> None:
        """Put the rows of a layer in the order in which they are divided."""
        if any(count % self.count for count in rows):
            raise ConfigError(
                f"training.parallel.tensor: {self.count} processes cannot share the"
                f" {' + '.join(map(str, rows))} outputs of {path} equally; give a number that"
                " divides them, or change heads or feed_forward"
            )
        if len(rows) == 1:
            return
        parts = torch.arange(sum(rows)).split(list(rows))
        shares = [part.view(self.count, -1) for part in parts]
        order = torch.cat(shares, dim=1).flatten()
        for name, parameter in linear.named_parameters():
            self.order[f"{path}.{name}"] = order
            with torch.no_grad():
                parameter.copy_(parameter[order.to(parameter.device)])

    def _add_partial(self, path: str, module: nn.Module) -> None:
        self.partial |= {f"{path}.{name}" for name, _ in module.named_parameters()}

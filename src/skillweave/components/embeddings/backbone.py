"""Embedding of images and videos by a vision model of Transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from skillweave.components.embeddings.patch import with_learned
from skillweave.config.streams import BackboneImageStream


class BackboneEmbedding(nn.Module):
    """[CLS] and the projected features of a vision model: pixels [N, 3, H, W] → [N, 1 + L, D], or
    frames [N, 3, T, H, W] → [N, 1 + T·L, D] (M6 section 3.2).

    Features [N, L, C] that were computed before may stand in place of the pixels.

    `model`: the vision model. `extract`: its features [N, L, C] of pixels [N, 3, H, W]. `build`: a
    model like it with random weights. `frozen`: whether it is not trained; it then stays in
    evaluation mode. `cls_token`: whether there is a [CLS].
    """

    def __init__(
        self,
        model: nn.Module,
        extract: Callable[[nn.Module, Tensor], Tensor],
        build: Callable[[], nn.Module],
        channels: int,
        width: int,
        frozen: bool,
        cls_token: bool = True,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(not frozen)
        self.extract, self.build, self.frozen = extract, build, frozen
        self.projection = nn.Linear(channels, width)
        self.first = nn.Parameter(torch.zeros(width)) if cls_token else None
        self.register_load_state_dict_post_hook(_fill_buffers)

    @classmethod
    def from_stream(cls, stream: BackboneImageStream, width: int) -> Self:
        """The module that a stream describes, with the weights of its path, if it has one and the
        module is not built on the meta device."""
        backbone = stream.backbone
        model = backbone.build(pretrained=not torch.empty(0).is_meta)
        return cls(
            model,
            backbone.extract,
            partial(backbone.build, pretrained=False),
            backbone.shape(stream.size)[1],
            width,
            backbone.frozen,
            stream.cls_token,
        )

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but a frozen model stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def features(self, pixels: Tensor) -> Tensor:
        """The features of pixels [N, 3, H, W] or frames [N, 3, T, H, W], before the projection: [N,
        L, C], or [N, T·L, C] in the order of time. They carry no gradient if the model is
        frozen."""
        if pixels.ndim == 4:
            return self.extract(self.model, pixels)
        frames = pixels.transpose(1, 2)
        found = self.extract(self.model, frames.flatten(0, 1))
        return found.unflatten(0, frames.shape[:2]).flatten(1, 2)

    def forward(self, data: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """The features in the order of time, then of rows."""
        features_NLC = data if data.ndim == 3 else self.features(data)
        return with_learned([self.first], self.projection(features_NLC))


def _fill_buffers(embedding: BackboneEmbedding, _: Any) -> None:
    """Give values to the buffers that no file holds, such as tables of relative positions, after a
    model without memory has got its weights."""
    model = embedding.model
    held = model.state_dict().keys()
    open_buffers = [name for name, x in model.named_buffers() if x.is_meta and name not in held]
    if not open_buffers:
        return
    made = dict(embedding.build().named_buffers())
    for name in open_buffers:
        path, _, own = name.rpartition(".")
        model.get_submodule(path).register_buffer(own, made[name], persistent=False)

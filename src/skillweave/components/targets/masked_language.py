"""Masked language modelling: the masked tokens of a text."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    TargetConfig,
    output_weight,
)
from skillweave.components.targets.vocabulary import VocabularyTarget
from skillweave.config.encoder import Activation
from skillweave.layers.feed_forward import ACTIVATIONS


@TARGETS.register("mlm")
class MaskedLanguageConfig(TargetConfig):
    """Masked language modelling: logits at masked positions only (BERT)."""

    packable: ClassVar[bool] = True

    kind: Literal["mlm"] = "mlm"
    modality: Modality = Modality.TEXT
    """Modality whose tokens are predicted."""
    tied: bool = True
    """Whether the output layer is tied to the word embedding of `modality`."""
    activation: Activation = "gelu"
    """Nonlinearity of the layer before the output layer."""
    biases: list[Literal["transform", "norm", "output"]] = ["transform", "norm", "output"]
    """Which parts have a bias: the layer before the output layer, its norm, and the output layer
    (ModernBERT: the output layer alone)."""

    @property
    def tied_to(self) -> Modality | None:
        """See `TargetConfig`."""
        return self.modality if self.tied else None

    def build(self, model: ModelSpec) -> MaskedLanguage:
        """See `TargetConfig`."""
        return MaskedLanguage(
            model.width,
            model.vocabulary(self.modality),
            model.encoder.norm_epsilon,
            model.sharers(self.modality),
            model.word_size(self.modality),
            self.activation,
            self.biases,
            self.tied,
        )

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        yield from tied_stream_faults(model, self.modality)

    def check_task(self, model: ModelSpec, task: str) -> Iterator[str]:
        """Tokens of every text and code span must be predicted by some target of the task."""
        own = [
            target
            for name in model.tasks[task].targets
            if isinstance(target := model.targets.get(name), MaskedLanguageConfig)
        ]
        if own[0] is not self:
            return
        predicted = {one for target in own for one in model.sharers(target.modality)}
        for modality in dict.fromkeys(span.modality for span in model.tasks[task].spans):
            if modality not in predicted and model.vocabulary(modality):
                remedy = f"add a target {{kind: mlm, modality: {modality.value}}} to the task"
                yield (
                    f"predicts no tokens of {modality.value!r}, which task {task!r} masks too;"
                    f" {remedy}, or set `shared: [word]`"
                )


def tied_stream_faults(model: ModelSpec, modality: Modality) -> Iterator[str]:
    """The fault of an output layer that is tied to a word embedding which the model lacks."""
    if not model.vocabulary(modality):
        yield f"is tied to the words of a stream {modality.value!r}; add it under model.streams"


class MaskedLanguage(VocabularyTarget):
    """BERT's transform, then the output layer, which may be `tied` to the word embedding.

    Only tokens of that embedding are predicted: where text and code have tokens of their own, each
    has its own target. `size`: of the word embedding, if that is not `width` (ALBERT, ELECTRA).
    `biases`: as in `MaskedLanguageConfig`.
    """

    def __init__(
        self,
        width: int,
        vocabulary: int,
        epsilon: float,
        modalities: Collection[Modality],
        size: int | None = None,
        activation: str = "gelu",
        biases: Collection[str] = ("transform", "norm", "output"),
        tied: bool = True,
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.transform = nn.Linear(width, size or width, "transform" in biases)
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.LayerNorm(size or width, epsilon, bias="norm" in biases)
        self.bias = nn.Parameter(torch.zeros(vocabulary)) if "output" in biases else None
        self.output = None if tied else nn.Linear(size or width, vocabulary, bias=False)

    def source(self, passes: list[Encoded]) -> Encoded:
        """See `VocabularyTarget`."""
        return passes[0]

    def before_output(self, x_MD: Tensor) -> Tensor:
        """See `VocabularyTarget`."""
        return self.norm(self.activation(self.transform(x_MD)))

    def output_layer(self, output_embeddings: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See `VocabularyTarget`."""
        return output_weight(self.output, output_embeddings), self.bias

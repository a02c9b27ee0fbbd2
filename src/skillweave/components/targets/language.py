"""Language modelling: the token after each position."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.targets.base import (
    TARGETS,
    ModelSpec,
    TargetConfig,
    output_weight,
)
from skillweave.components.targets.masked_language import tied_stream_faults
from skillweave.components.targets.vocabulary import VocabularyTarget
from skillweave.config.base import Positive, Share


@TARGETS.register("lm")
class LanguageConfig(TargetConfig):
    """Language modelling: each position predicts the next token (GPT-2; with a decoder, T5)."""

    decoding_options: ClassVar[frozenset[str]] = frozenset(
        {"label_smoothing", "beams", "length_penalty", "max_answer_tokens", "begin", "generation"}
    )
    writes_text: ClassVar[bool] = True
    packable: ClassVar[bool] = True

    kind: Literal["lm"] = "lm"
    modality: Modality = Modality.TEXT
    """Modality whose tokens are predicted."""
    tied: bool = True
    """Whether the output layer is tied to the word embedding (of the decoder, if there is one)."""
    bias: bool = False
    """Whether the output layer adds a bias (BART)."""
    scaled: bool = False
    """Whether vectors are divided by √width before the output layer (T5)."""
    softcap: PositiveFloat | None = None
    """Soft-capping: a logit s becomes c · tanh(s / c) for this c (Gemma 2, arXiv 2408.00118 section
    2). Default: none."""
    label_smoothing: Share = 0.0
    """In training, the share of the label's probability that is spread evenly over all tokens
    (Transformer, arXiv 1706.03762 section 5.4)."""
    beams: Positive = 1
    """Beams of the search that writes a text. 1 takes the most probable token at each step."""
    length_penalty: NonNegativeFloat = 1.0
    """With several beams, the log-probability of a text is divided by its length to this power.
    Larger values favour longer texts."""
    begin: list[str] = []
    """Tokens with which every text of a decoder begins after [CLS]. They are not predicted. For
    Whisper: `<|zh|>`, `<|transcribe|>`, `<|notimestamps|>`."""
    max_answer_tokens: Positive = 128
    """Length of the longest text that is written, in tokens. It is never longer than the decoder
    can read."""
    generation: dict[str, Any] = {}
    """Further options of Transformers' `generation_config.json`, under their names. A decoder
    follows `repetition_penalty`, `no_repeat_ngram_size`, `bad_words_ids`, `min_length`,
    `min_new_tokens`, `forced_bos_token_id`, `forced_eos_token_id`, `suppress_tokens`,
    `begin_suppress_tokens`, `renormalize_logits`, `early_stopping`, `cache_implementation: static`,
    and `penalty_alpha` with `top_k`. The others are kept for a conversion back."""

    @property
    def tied_to(self) -> Modality | None:
        """See `TargetConfig`."""
        return self.modality if self.tied else None

    def build(self, model: ModelSpec) -> Language:
        """See `TargetConfig`."""
        vocabulary = model.answer_vocabulary(self.modality)
        return Language(
            model.width,
            None if self.tied else vocabulary,
            vocabulary if self.bias else None,
            model.sharers(self.modality),
            model.width**-0.5 if self.scaled else 1.0,
            self.label_smoothing,
            self.softcap,
        )

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        size = model.answer_size(self.modality)
        if self.tied and size != model.width:
            yield (
                f"is tied to words of size {size}, and its vectors have {model.width};"
                " set `tied: false`"
            )
        if not model.decoder:
            yield from tied_stream_faults(model, self.modality)


class Language(VocabularyTarget):
    """Each position of the last pass predicts its label, the next token (GPT-2; of a decoder: T5).

    `outputs`: tokens of an output layer of its own; None where the output is tied to the word
    embedding. `bias`: length of the bias, if any. `scale`: of the vectors before the output layer.
    `smoothing`: label smoothing in training. `softcap`: of the logits, if any.
    """

    def __init__(
        self,
        width: int,
        outputs: int | None,
        bias: int | None,
        modalities: Collection[Modality],
        scale: float = 1.0,
        smoothing: float = 0.0,
        softcap: float | None = None,
    ) -> None:
        super().__init__()
        self.modalities, self.scale, self.smoothing = modalities, scale, smoothing
        self.softcap = softcap
        self.output = None if outputs is None else nn.Linear(width, outputs, bias=False)
        self.bias = None if bias is None else nn.Parameter(torch.zeros(bias))

    def before_output(self, x_MD: Tensor) -> Tensor:
        """See `VocabularyTarget`."""
        return x_MD if self.scale == 1 else x_MD * self.scale

    def output_layer(self, output_embeddings: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See `VocabularyTarget`."""
        return output_weight(self.output, output_embeddings), self.bias

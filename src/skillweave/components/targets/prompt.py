"""Prompting: classes as words that a masked language model expects at [MASK]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.batch import Modality
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    TargetConfig,
    TargetOutput,
    TrainingData,
)
from skillweave.components.targets.masked_language import MaskedLanguage, tied_stream_faults
from skillweave.config.base import ConfigError
from skillweave.config.task import TaskSettings
from skillweave.layers.precision import at_least_float32

MASK = "[MASK]"
"""What stands for the word of the class in a task's template."""


def template_of(settings: TaskSettings) -> str:
    """The template of a task, by default the word of its class after the text."""
    return settings.template or f"{{text}} {MASK}"


@TARGETS.register("prompt")
class PromptConfig(TargetConfig):
    """One class per text, by the word that a masked language model predicts at [MASK] (PET). It has
    the same parameters as `mlm`, so weights of such a model are copied by name."""

    label_field: ClassVar[str | None] = "label"
    fitted: ClassVar[tuple[str, ...]] = ("words",)

    kind: Literal["prompt"] = "prompt"
    words: list[list[int]] = []
    """Token ids of the word of each class; taken from the task's `classes`."""
    modality: Modality = Modality.TEXT
    """Modality to whose word embedding the output layer is tied."""

    @property
    def tied_to(self) -> Modality:
        """See `TargetConfig`."""
        return self.modality

    def build(self, model: ModelSpec) -> Prompt:
        """See `TargetConfig`."""
        vocabulary = model.vocabulary(self.modality)
        return Prompt(model.width, vocabulary, model.encoder.norm_epsilon, self.words)

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        yield from tied_stream_faults(model, self.modality)

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        """The token ids of the classes' words.

        Raises ConfigError for a template without one {text} and one [MASK], and for words that have
        different numbers of tokens or are the same to the tokenizer.
        """
        task, settings = data[0].name, data[0].settings
        template = template_of(settings)
        if template.count("{text}") != 1 or template.count(MASK) != 1:
            raise ConfigError(
                f"tasks.{task}.template: {template!r} needs one {{text}} and one {MASK}"
            )
        ids = {word: data[0].token_ids(word) for word in settings.classes.values()}
        if len({len(tokens) for tokens in ids.values()}) != 1:
            found = ", ".join(f"{word!r} {len(tokens)}" for word, tokens in ids.items())
            raise ConfigError(
                f"tasks.{task}.classes: all words must have the same number of tokens, and they"
                f" have {found}; choose others"
            )
        if len(set(map(tuple, ids.values()))) < len(ids):
            raise ConfigError(
                f"tasks.{task}.classes: some words are the same to the tokenizer; choose others"
            )
        return {"words": list(ids.values())}


class Prompt(MaskedLanguage):
    """Cross-entropy over classes, of which each has the mean log-likelihood of its word's tokens
    at [MASK] (PET, arXiv 2001.07676).

    Its parameters are those of masked language modelling. `words`: [C, P] token ids.
    """

    labels = ("class",)
    per_token = False

    def __init__(self, width: int, vocabulary: int, epsilon: float, words: list[list[int]]) -> None:
        super().__init__(width, vocabulary, epsilon, frozenset(Modality))
        self.words = words

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, C]. Label `class` [N].

        The kept positions are the [MASK]s of each sample, as many as a word has tokens. Raises
        ValueError without them.
        """
        keep_NL = passes[0].keep_NL
        if keep_NL is None:
            raise ValueError("a prompt needs the positions of [MASK] as `logits_to_keep`")
        words_CP = torch.tensor(self.words, device=keep_NL.device)
        x_NPD = passes[0].padded()[keep_NL].view(len(keep_NL), words_CP.shape[1], -1)
        likelihood_NPV = at_least_float32(self.token_logits(x_NPD, output_embeddings))
        likelihood_NPV = likelihood_NPV.log_softmax(-1)
        chosen_NPC = likelihood_NPV.gather(-1, words_CP.T.expand(len(x_NPD), -1, -1))
        logits_NC = chosen_NPC.mean(1)
        label_N = labels.get("class")
        loss = None if label_N is None else F.cross_entropy(logits_NC, label_N)
        return TargetOutput(loss, logits_NC)

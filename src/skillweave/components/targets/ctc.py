"""CTC: transcripts without an alignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from skillweave.batch import IGNORE
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Target,
    TargetConfig,
    TargetOutput,
    TrainingData,
    present_values,
)
from skillweave.config.base import ConfigError, Positive, Whole
from skillweave.config.reading import lines_of, read_lines
from skillweave.data.values import texts_of
from skillweave.layers.precision import at_least_float32


@TARGETS.register("ctc")
class CTCConfig(TargetConfig):
    """Connectionist temporal classification over characters (SkillNet section 4.1)."""

    label_field: ClassVar[str | None] = "transcript"
    fitted: ClassVar[tuple[str, ...]] = ("characters",)
    decoding_options: ClassVar[frozenset[str]] = frozenset(
        {"beams", "language", "language_text", "language_weight", "length_bonus"}
    )
    asset: ClassVar[str | None] = "transcripts.txt"

    kind: Literal["ctc"] = "ctc"
    characters: list[str] = []
    """The alphabet without the blank; taken from the training transcripts if empty."""
    beams: Positive = 1
    """Beams of the search for a transcript. 1 takes the most probable class of each frame."""
    language: Whole = 0
    """The search uses a language model of the training transcripts with n-grams of this many
    characters; 0 for none."""
    language_text: str | None = None
    """A text file with one sentence per line, from which the language model also learns."""
    language_weight: NonNegativeFloat = 0.5
    """Factor of the language model's log-probability."""
    length_bonus: float = 0.5
    """With a language model: added to the log-probability of a transcript for each character."""

    @property
    def assets(self) -> frozenset[str]:
        """The transcripts, where a language model learns from them."""
        return frozenset({"transcripts.txt"} if self.language else ())

    def build(self, model: ModelSpec) -> CTC:
        """See `TargetConfig`."""
        return CTC(model.width, len(self.characters))

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        """The characters of the training transcripts."""
        texts = texts_of(present_values(data, "transcript"))
        characters = sorted({character for text in texts for character in text})
        if not characters:
            raise ConfigError("the training data has 0 characters; check the label column")
        return {"characters": characters}

    def keeps_labels(self, own: Any, known: Any) -> bool:
        """See `TargetConfig`. A base that knows more characters goes on knowing them."""
        return isinstance(known, list) and set(own) <= set(known)

    def fit_assets(self, data: TrainingData, model: ModelSpec) -> dict[str, bytes]:
        """The transcripts, and the lines of `language_text` that the alphabet can spell."""
        texts = list(texts_of(data.column("transcript", whole=False)))
        if self.language_text:
            lines = read_lines(Path(self.language_text), "language_text")
            texts += [line for line in lines if line and set(line) <= set(self.characters)]
        return {"transcripts.txt": "".join(f"{text}\n" for text in texts).encode()}

    def load_asset(self, content: bytes) -> list[str]:
        """The texts that the language model learns from."""
        return lines_of(content)


class CTC(Target):
    """Connectionist temporal classification over characters; class 0 is the blank (SkillNet section
    4.1)."""

    labels = ("characters",)

    def __init__(self, width: int, characters: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, characters + 1)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, L, 1 + characters]; those at padding mean nothing. Label `characters` [N, K],
        padded with IGNORE."""
        tokens = passes[0].tokens
        logits_NLC = tokens.to_padded(self.classifier(passes[0].hidden_TD))
        label_NK = labels.get("characters")
        if label_NK is None:
            return TargetOutput(None, logits_NLC)
        loss = F.ctc_loss(
            at_least_float32(logits_NLC).log_softmax(-1).transpose(0, 1),
            label_NK.clamp(min=0),
            tokens.lengths,
            (label_NK != IGNORE).sum(1),
            zero_infinity=True,
        )
        return TargetOutput(loss, logits_NLC)

"""Transcription: what was said, by CTC over characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import Example, Features, Modality, Span
from skillweave.config.streams import SoundStream
from skillweave.data.processors import BadInput
from skillweave.data.values import first_text
from skillweave.generation.ctc import prefix_beam_search
from skillweave.generation.ngram import NGram
from skillweave.metrics import Columns, best_constant, edit_counts, edit_distance, estimate, ratio
from skillweave.model.model import Model
from skillweave.tasks.cases import CASES, Case, Item
from skillweave.tasks.predictions import Predictions, first_logits, on_device
from skillweave.tasks.task import (
    Baseline,
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    caption_of,
    register,
)


@dataclass(kw_only=True)
class Transcripts(Predictions):
    """What was said and what the model heard, one text a sample."""

    references: list[str]
    hypotheses: list[str]


class TranscriptMetrics:
    """Metrics, chance level and report cases of transcripts, however they are made."""

    metrics: ClassVar[tuple[str, ...]] = ("cer",)

    def columns(self, found: Predictions) -> Columns:
        """Character error rate."""
        found = cast(Transcripts, found)
        return {"cer": (ratio, list(edit_counts(found.references, found.hypotheses)))}

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the best constant transcript."""
        found = cast(Transcripts, found)
        return {"cer": best_constant(data.training_values("transcript"), found.references)[1]}

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`transcript`."""
        return {"transcript": cast(Transcripts, found).hypotheses[index]}


@dataclass(frozen=True, kw_only=True)
class Transcription(TranscriptMetrics, Task):
    """CTC over characters (SkillNet section 4.1). In training several recordings may be joined."""

    asked_fields: ClassVar[frozenset[str]] = frozenset({"transcript"})

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        processor = context.processors[Modality.SOUND]
        if not context.labelled:
            return Example((processor(row.get("sound")),), {}, row["key"])
        rows, join = [row], context.augment.join
        if context.training and context.draw is not None and join > 1:
            rows += [context.draw(rng) for _ in range(int(rng.integers(join)))]
        drawn = context.augmentation(rng)
        parts = [processor(one.get("sound"), drawn) for one in rows]
        transcript = "".join(caption_of(one, "transcript") for one in rows)
        alphabet = {character: i + 1 for i, character in enumerate(context.target.characters)}
        if unknown := sorted(set(transcript) - set(alphabet)):
            raise BadInput(
                f"characters not in the alphabet: {' '.join(unknown)}; list them under"
                " model.targets.*.characters"
            )
        features = parts[0] if len(parts) == 1 else join_recordings(parts, processor.stream)
        if features.length < needed_frames(transcript):
            raise BadInput(f"{features.length} frames are too few for {len(transcript)} characters")
        ids = torch.tensor([alphabet[character] for character in transcript])
        return Example((features,), {"characters": ids}, row["key"])

    def labels_in(self, cell: Any) -> Iterable[str]:
        """Its characters."""
        return first_text(cell)

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> Transcripts:
        """Transcripts, with the labels spelled out."""
        characters, decode, seen = task.target.characters, ctc_decoder(model, task), Predictions()
        references, hypotheses = [], []
        for batch in on_device(model, batches, seen):
            logits_NLC = first_logits(model, batch).float().cpu()
            lengths = batch.lengths[:, 0].tolist()
            for row_LC, length in zip(logits_NLC, lengths, strict=True):
                hypotheses.append(decode(row_LC[:length]))
            if "characters" in batch.labels:
                references += [spell(ids, characters) for ids in batch.labels["characters"].cpu()]
        return Transcripts(references=references, hypotheses=hypotheses, **vars(seen))

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """The transcript of the nearest training recording by MFCC; None without any."""
        from skillweave.metrics.baselines import nearest  # scikit-learn is slow to import
        from skillweave.tasks.simple import measured_vectors, training_vectors

        rows, train_ND = training_vectors(data, Modality.SOUND)
        if not rows:
            return None
        test_ND = measured_vectors(data, Modality.SOUND, found.keys)
        guess = [first_text(rows[i].get("transcript", "")) for i in nearest(train_ND, test_ND)]
        columns = self.columns(replace(cast(Transcripts, found), hypotheses=guess))
        return Baseline("MFCC and the nearest recording", estimate(columns, 0)[0])

    def cases(self, found: Predictions, data: MeasuredData) -> list[Case]:
        """The first recordings with what was said and heard."""
        return text_cases(self.given[0], cast(Transcripts, found), data)


def text_cases(field: str, found: Any, data: MeasuredData) -> list[Case]:
    """The first samples, each with its reference, its hypothesis and the edits between them."""
    cases = []
    for i, key in enumerate(found.keys[:CASES]):
        reference, hypothesis = found.references[i], found.hypotheses[i]
        item, edits = Item(field, data.row(key)[field]), edit_distance(reference, hypothesis)
        cases.append(Case(item, reference=reference, hypothesis=hypothesis, edits=edits))
    return cases


def join_recordings(parts: Sequence[Features], stream: SoundStream) -> Features:
    """Recordings one after the other. Raises BadInput when they do not fit the stream together."""
    sound = torch.cat([part.data for part in parts])
    length = stream.output_length(len(sound))
    if length > stream.max_length:
        raise BadInput(
            f"{len(parts)} joined recordings take {length} positions, more than the"
            f" {stream.max_length} there are"
        )
    return Features(sound, length)


def needed_frames(transcript: str) -> int:
    """Frames that CTC needs: one per character and a blank between equal neighbours."""
    return len(transcript) + sum(a == b for a, b in pairwise(transcript))


def ctc_decoder(model: Model, task: ResolvedTask) -> Callable[[Tensor], str]:
    """What turns logits [L, 1 + characters] into a transcript: greedy search, or beams and a
    language model as the target says."""
    target = task.target
    characters = target.characters
    if target.beams == 1 and not target.language:
        return lambda logits_LC: decode_ctc(logits_LC.argmax(-1), characters)
    language, bonus = None, 0.0
    if target.language:
        ids = {character: i for i, character in enumerate(characters, 1)}
        lines = target.load_asset(model.assets[target.asset])
        known = ([ids[c] for c in line if c in ids] for line in lines)
        language = NGram(known, target.language, len(characters) + 1)
        bonus = target.length_bonus

    def decode(logits_LC: Tensor) -> str:
        log_probabilities_LC = logits_LC.log_softmax(-1)
        weight = target.language_weight
        found = prefix_beam_search(log_probabilities_LC, target.beams, language, weight, bonus)
        return "".join(characters[number - 1] for number in found)

    return decode


def decode_ctc(best: Tensor, characters: Sequence[str]) -> str:
    """Greedy CTC: the best id of each frame [L], repeats merged, blanks (0) dropped (Graves 2006,
    section 3.2)."""
    return spell(torch.unique_consecutive(best), characters)


def spell(ids: Tensor, characters: Sequence[str]) -> str:
    """The characters of ids; the blank and padding are left out."""
    return "".join(characters[i - 1] for i in ids.tolist() if i > 0)


register(
    Transcription(
        name="speech_recognition",
        drafted=True,
        summary="what was said, by CTC over characters (SkillNet section 4.1)",
        spans=(Span(Modality.SOUND),),
        targets=("ctc",),
        fields=("sound", "transcript"),
    )
)

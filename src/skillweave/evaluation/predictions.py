"""What a model says about a task's samples, gathered over batches: the raw material of metrics,
reports and `predict`.

Shape letters: N samples, C classes, D width, L positions of a pass, M masked positions over all
samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import cast

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.components.targets.base import Target, joint, labelled_tokens
from skillweave.components.targets.pixels import MaskedAutoencoder, MaskedPixels
from skillweave.config.targets import TRANSCRIPTS_ASSET, CTCTarget
from skillweave.data.collate import PER_POSITION
from skillweave.data.processors.picture import to_bytes
from skillweave.evaluation.kinds import (
    Classified,
    Embedded,
    Filled,
    Predictions,
    Restored,
    Transcribed,
    evaluating,
    moved,
    stack,
)
from skillweave.evaluation.readers import (
    answer_questions,
    classify_several,
    score,
    tag_words,
    write_texts,
)
from skillweave.generation.ctc import prefix_beam_search
from skillweave.generation.ngram import NGram
from skillweave.layers.tokens import map_tokens
from skillweave.model.model import Model

SHOWN = 6
"""Pictures kept to look at."""
Progress = Callable[[str, int, int], None]
"""Called with the task, samples done and samples in all."""


def target_of(model: Model, task: str, kind: str) -> str:
    """The name of the task's target of a kind."""
    targets = model.config.tasks[task].targets
    return next(name for name in targets if model.config.targets[name].kind == kind)


def encode_candidates(model: Model, batches: Iterable[Batch]) -> Tensor | None:
    """The vectors [C, D] of a task's candidates, for as long as the weights stay as they are; None
    for a task without."""
    device = next(model.parameters()).device
    with evaluating(model):
        vectors = [model.embed(batch.to(device))[0] for batch in batches]
    return torch.cat(vectors) if vectors else None


def classify(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Classified:
    """Class probabilities of every sample."""
    seen = Predictions()
    labels, probabilities = [], []
    for batch in moved(model, batches, seen):
        if "class" in batch.labels:
            labels.append(batch.labels["class"].cpu())
        logits_NC = next(iter(model(batch, candidates=candidates).logits.values()))
        probabilities.append(logits_NC.float().softmax(-1).cpu())
    return Classified(labels=stack(labels), probabilities=stack(probabilities), **vars(seen))


def transcribe(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Transcribed:
    """CTC transcripts of every sample, with the labels spelt out."""
    target, seen = target_of(model, task, "ctc"), Predictions()
    characters, decode = ctc_characters(model, task), ctc_decoder(model, task)
    references, hypotheses = [], []
    for batch in moved(model, batches, seen):
        logits = model(batch).logits[target].float().cpu()
        hypotheses += [
            decode(row[:length])
            for row, length in zip(logits, batch.lengths[:, 0].tolist(), strict=True)
        ]
        references += (
            [spell(row, characters) for row in batch.labels["characters"].cpu()]
            if batch.labels
            else []
        )
    return Transcribed(references=references, hypotheses=hypotheses, **vars(seen))


def embed_pairs(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Embedded:
    """Unit vectors of both sides of every sample: its first pass, and all the others."""
    queries, items, captions, seen = [], [], [], Predictions()
    for batch in moved(model, batches, seen):
        query_ND, *parts = model.embed(batch)
        queries.append(query_ND.float().cpu())
        items.append(joint(parts).float().cpu())
        captions.append(batch.labels["caption"].cpu())
    return Embedded(
        queries=stack(queries), items=stack(items), captions=stack(captions), **vars(seen)
    )


def fill(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Filled:
    """Losses of the positions of every sample that are asked for: masked ones, or those before each
    word.

    Logits come only where there is a label, in the order of the encoder's flat tokens; labels are
    brought into that order.
    """
    seen = Predictions()
    labels, losses, correct, samples, offset = [], [], [], [], 0
    for batch in moved(model, batches, seen):
        # of ELMo two
        asked = [labels for name, labels in batch.labels.items() if name in PER_POSITION]
        tokens = map_tokens(
            batch.layout, len(batch.layout.passes) - 1, batch.lengths, asked[0].device
        )
        rows_NL = torch.arange(len(batch), device=asked[0].device)[:, None].expand_as(asked[0])
        offset = 0  # two vocabularies may use the same numbers for different words
        for target, logits_MC in model(batch, candidates=candidates).logits.items():
            if model.config.targets[target].kind == "classification":
                continue  # of a pair of sentences, beside its words
            places = [
                labelled_tokens(tokens, labels_NL, cast(Target, model.targets[target]).modalities)
                for labels_NL in asked
            ]
            if logits_MC.ndim == 1:  # of "yes", beside that of "no", which is 0
                logits_MC = torch.stack([torch.zeros_like(logits_MC), logits_MC], dim=1)
            labels_M = torch.cat(
                [tokens.to_tokens(x_NL)[at_M] for x_NL, at_M in zip(asked, places, strict=True)]
            )
            labels.append(labels_M.cpu() + offset)
            offset += logits_MC.shape[1]
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits_MC.float(), labels_M, reduction="none"
                ).cpu()
            )
            correct.append((logits_MC.argmax(-1) == labels_M).cpu())
            samples += [
                tokens.to_tokens(rows_NL)[at_M].cpu() + len(seen.keys) - len(batch)
                for at_M in places
            ]
    return Filled(
        classes=offset,
        labels=stack(labels),
        losses=stack(losses),
        correct=stack(correct),
        samples=stack(samples),
        **vars(seen),
    )


def restore(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Restored:
    """How far the pixels of every picture's hidden patches are from what the model makes of
    them."""
    (name,), seen = model.config.tasks[task].targets, Predictions()
    target = cast(MaskedPixels | MaskedAutoencoder, model.targets[name])
    stream = model.config.visual(model.config.tasks[task].spans[0].modality)
    errors, of_mean, views = [], [], []
    for batch in moved(model, batches, seen):
        restored_NPC = model(batch).logits[name].float()
        wanted_NPC = target.patches(batch.labels["pixels"])
        if len(views) < SHOWN:
            shown = [
                x[: SHOWN - len(views)]
                for x in (restored_NPC, batch.labels["pixels"], batch.labels["masked"])
            ]
            pictures = (
                shown[1],
                target.paint(torch.zeros_like(shown[0]), *shown[1:]),
                target.paint(*shown),
            )
            # of a clip its middle frame
            pictures = [x if x.ndim == 4 else x[:, :, x.shape[2] // 2] for x in pictures]
            views += [
                list(view)
                for view in zip(
                    *(to_bytes(x, stream.mean, stream.std) for x in pictures), strict=True
                )
            ]
        hidden_NP1 = batch.labels["masked"].unsqueeze(-1)
        mean_N1C = (wanted_NPC * ~hidden_NP1).sum(1, keepdim=True) / (~hidden_NP1).sum(
            1, keepdim=True
        )
        for found, guess_NPC in ((errors, restored_NPC), (of_mean, mean_N1C)):
            found.append(((guess_NPC - wanted_NPC).square() * hidden_NP1).sum((1, 2)).cpu())
    return Restored(errors=stack(errors), of_mean=stack(of_mean), views=views, **vars(seen))


def compare(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Predictions:
    """What the labels ask for: one of the candidates for a position or for a sample, or else the
    sample's pair."""
    first = next(batches := iter(batches))
    answer = fill if "words" in first.labels else embed_pairs if candidates is None else classify
    return answer(model, task, chain([first], batches), candidates)


def continue_or_write(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Predictions:
    """The words at the positions that are asked for, or of a task that has answers the text that
    the decoder writes."""
    first = next(batches := iter(batches))
    answer = fill if "words" in first.labels and "answer" not in first.notes[0] else write_texts
    return answer(model, task, chain([first], batches))


def predict_task(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Predictions:
    """The predictions that fit the kind of the task's first target. `candidates`: what
    `encode_candidates` gave."""
    kind = model.config.targets[next(iter(model.config.tasks[task].targets))].kind
    with evaluating(model):
        return PREDICTORS[kind](model, task, batches, candidates)


PREDICTORS: dict[str, Callable[[Model, str, Iterable[Batch], Tensor | None], Predictions]] = {
    "classification": classify,
    "choice": classify,
    "prompt": classify,
    "multi_label": classify_several,
    "regression": score,
    "cosine": score,
    "token_labels": tag_words,
    "span": answer_questions,
    "contrastive": embed_pairs,
    "similarity": compare,
    "ctc": transcribe,
    "lm": continue_or_write,
    "bilm": fill,
    "mlm": fill,
    "replaced": fill,
    "masked_unit": fill,
    "masked_image_token": fill,
    "masked_pixels": restore,
    "masked_autoencoder": restore,
}
"""Kind of target → how its predictions are gathered."""


def ctc_characters(model: Model, task: str) -> list[str]:
    """The alphabet of a transcription task; id 0 is the blank, so character i has id i + 1."""
    config = model.config.targets[target_of(model, task, "ctc")]
    return config.characters if isinstance(config, CTCTarget) else []


def ctc_decoder(model: Model, task: str) -> Callable[[Tensor], str]:
    """What makes a transcript of logits [L, 1 + characters]: greedy, or by beams and a language
    model as the target says."""
    spec, characters = (
        model.config.targets[target_of(model, task, "ctc")],
        ctc_characters(model, task),
    )
    if not isinstance(spec, CTCTarget) or (spec.beams == 1 and not spec.language):
        return lambda logits_LC: decode_ctc(logits_LC.argmax(-1), characters)
    language, bonus = None, 0.0
    if spec.language:
        numbers = {character: i for i, character in enumerate(characters, 1)}
        lines = model.assets[TRANSCRIPTS_ASSET].decode("utf-8").splitlines()
        language = NGram(
            ([numbers[c] for c in line if c in numbers] for line in lines),
            spec.language,
            len(characters) + 1,
        )
        bonus = spec.length_bonus

    def decode(logits_LC: Tensor) -> str:
        found = prefix_beam_search(
            logits_LC.log_softmax(-1), spec.beams, language, spec.language_weight, bonus
        )
        return "".join(characters[number - 1] for number in found)

    return decode


def decode_ctc(best: Tensor, characters: list[str]) -> str:
    """Greedy CTC: the best id of each frame [L], repeats merged, blanks (0) dropped (Graves 2006,
    section 3.2)."""
    return spell(torch.unique_consecutive(best), characters)


def spell(ids: Tensor, characters: list[str]) -> str:
    """Characters of ids; the blank and padding are left out."""
    return "".join(characters[i - 1] for i in ids.tolist() if i > 0)


def watched(
    batches: Iterable[Batch], task: str, total: int, progress: Progress | None
) -> Iterator[Batch]:
    """The same batches, reported as they pass."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch) + len(batch.skipped)
        if progress:
            progress(task, done, total)

"""Builders of pretraining tasks over text and pictures: what is masked, sentence pairs, denoising
and gap sentences."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from skillweave.batch import IGNORE, Example, Features, Modality
from skillweave.config.data import CLIP_SHARE, MASKED_SHARES, WORD_SHARE
from skillweave.config.streams import VISIBLE
from skillweave.data.corruption import gap_sentences, infill, sentences_of, take_spans
from skillweave.data.masking import mask_squares, mask_words
from skillweave.data.processors import BadInput
from skillweave.data.word_boundaries import span_numbers, word_numbers
from skillweave.tasks.build import caption_of, features_of, fixed, mask_span
from skillweave.tasks.build_answers import answer_room, decoded
from skillweave.tasks.task import Builder, Row, Tools

IN_ORDER, OTHERWISE = 0, 1
"""Classes of the target `sentence_pair`."""


def masked_text(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A text with some of its pieces, words or spans masked (`masking`)."""
    processor, masking = tools.processors[Modality.TEXT], tools.config.masking
    text, draw = caption_of(row, "text", rng, whole=masking.unit != "piece"), rng or fixed(row)
    features, groups = processor(text), None
    if masking.unit != "piece":
        words = word_numbers(text, processor.encode(text), masking.unit == "chinese_word")
        words = span_numbers(words, draw) if masking.unit == "span" else words
        groups = np.full(features.length, -1)
        groups[processor.inside(features)] = words[: len(groups[processor.inside(features)])]
    special = processor.special_ids
    share = masking.share or WORD_SHARE
    ids, labels = mask_words(
        features.data, special, processor.mask, processor.vocabulary, draw, share, groups
    )
    return Example((Features(ids, features.length),), {"words": labels}, row["key"])


def masked_pair(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """Two parts of a text with some words masked, in order or not (ALBERT), or the second of
    another text (BERT)."""
    draw = rng or fixed(row)
    sentences = sentences_of(caption_of(row, "text", rng))
    if len(sentences) < 2:
        raise BadInput("one sentence alone; a pair needs two")
    cut = int(draw.integers(1, len(sentences)))
    first, second = "".join(sentences[:cut]), "".join(sentences[cut:])
    label = int(draw.integers(2))
    if label == OTHERWISE and tools.config.masking.pairs == "order":
        first, second = second, first
    elif label == OTHERWISE and tools.draw is not None:
        other = sentences_of(caption_of(tools.draw(draw), "text"))
        second = "".join(other[len(other) // 2 :])
    spans = tools.processors[Modality.TEXT].pair(first, second)
    masked = [mask_span(features, Modality.TEXT, tools, draw) for features in spans]
    labels = {"words": torch.cat([labels for _, labels in masked]), "class": label}
    return Example(tuple(features for features, _ in masked), labels, row["key"])


def replaced_text(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A text in which some pieces gave way to those of another text, and which these are (ELECTRA,
    without its generator)."""
    processor, draw = tools.processors[Modality.TEXT], rng or fixed(row)
    features = processor(caption_of(row, "text", rng, whole=False))
    other = caption_of(tools.draw(draw) if tools.draw else row, "text", whole=False)
    others = np.array(processor.pieces(other, processor.max_length))
    share = tools.config.masking.share or WORD_SHARE
    ids, inside = features.data.clone(), processor.inside(features)
    gone = draw.random(len(ids[inside])) < share
    ids[inside][torch.from_numpy(gone)] = torch.from_numpy(draw.choice(others, int(gone.sum())))
    labels = torch.full_like(ids, IGNORE)
    labels[inside] = (ids != features.data).long()[inside]
    return Example((Features(ids, features.length),), {"replaced": labels}, row["key"])


def denoised(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A text with spans masked and sentences in another order, then the text itself (BART; M6's
    text denoising)."""
    processor, draw = tools.processors[Modality.TEXT], rng or fixed(row)
    parts = [
        processor.encode(sentence).ids for sentence in sentences_of(caption_of(row, "text", rng))
    ]
    room = _room(tools)
    whole = [piece for part in parts for piece in part][:room]
    shuffled = [piece for i in draw.permutation(len(parts)) for piece in parts[i]]
    if not whole:
        raise BadInput("text without tokens")
    return _rewrite(infill(shuffled, processor.mask, draw)[:room], whole, tools, row)


def gapped(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A text without its principal sentences, a mask in place of each, then these sentences
    (Pegasus)."""
    processor = tools.processors[Modality.TEXT]
    parts = [
        processor.encode(sentence).ids for sentence in sentences_of(caption_of(row, "text", rng))
    ]
    if len(parts) < 2:
        raise BadInput("one sentence alone; to leave a gap there must be two")
    gaps = set(gap_sentences(parts))
    given = [
        piece for i, part in enumerate(parts) for piece in ([processor.mask] if i in gaps else part)
    ]
    wanted = [piece for i in sorted(gaps) for piece in parts[i]]
    room = _room(tools)
    return _rewrite(given[:room], wanted[:room], tools, row)


def corrupted(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A text without some of its spans, a sentinel in place of each, then the sentinels, each with
    its span behind it (T5).

    Sentinels are the tokeniser's `<extra_id_0>`, `<extra_id_1>`, ...; where there are none, [MASK]
    is every sentinel.
    """
    processor = tools.processors[Modality.TEXT]
    pieces = processor.pieces(caption_of(row, "text", rng, whole=False), _room(tools))
    if len(pieces) < 2:
        raise BadInput("one wordpiece alone; to leave a gap there must be two")
    given, spans = take_spans(pieces, rng or fixed(row))
    sentinels = [processor.tokenizer.token_to_id(f"<extra_id_{i}>") for i in range(len(spans) + 1)]
    marks = [processor.mask if number is None else number for number in sentinels]
    heads = [piece for part, mark in zip(given, marks, strict=False) for piece in (*part, mark)]
    tails = [piece for mark, part in zip(marks, spans, strict=False) for piece in (mark, *part)]
    return _rewrite(heads, [*tails, marks[-1]], tools, row)


def _room(tools: Tools) -> int:
    """Pieces that a text to rewrite may have, so that it and what is written fit, each with its
    [CLS], and [SEP] at their end."""
    most = tools.processors[Modality.TEXT].max_length
    return (most - 3) // 2 if tools.answers is None else min(most - 2, answer_room(tools))


def _rewrite(given: list[int], wanted: list[int], tools: Tools, row: Row) -> Example:
    """What is given, then what is to be written, of which every position predicts the next up to
    [SEP]; by a decoder, if any."""
    processor = tools.processors[Modality.TEXT]
    if tools.answers is not None:
        read, labels = decoded(wanted, tools)
        return Example(
            (processor.assemble(given, separator=True), read), {"words": labels}, row["key"]
        )
    head, body = processor.assemble(given), processor.assemble(wanted, separator=True)
    nothing = torch.full((head.length + 1,), IGNORE)
    return Example(
        (head, body), {"words": torch.cat([nothing[:-1], body.data[1:], nothing[-1:]])}, row["key"]
    )


def masked_patches(modality: Modality) -> Builder:
    """A picture or clip with some of its patches hidden, and its pixels (SimMIM); the encoder may
    see the others alone (MAE)."""

    def build(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        features, masked = _masked(modality, row, tools, rng)
        return Example((features,), {"pixels": features.data, "masked": masked}, row["key"])

    return build


def masked_image_tokens(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A picture with some of its patches hidden, and the visual token of each of these (BEiT)."""
    features, masked = _masked(Modality.IMAGE, row, tools, rng)
    units = tools.units(features.data)
    specials = torch.full((tools.model.picture.specials,), IGNORE)
    labels = torch.cat([specials, torch.where(masked, units, torch.full_like(units, IGNORE))])
    return Example((features,), {"units": labels}, row["key"])


def _masked(
    modality: Modality, row: Row, tools: Tools, rng: np.random.Generator | None
) -> tuple[Features, torch.Tensor]:
    """The picture or clip, and which of its patches [P] are hidden: the same places in all
    frames."""
    stream, masking = tools.model.visual(modality), tools.config.masking
    features = features_of(row, modality, tools, rng)
    share = masking.share or (
        CLIP_SHARE if modality is Modality.VIDEO else MASKED_SHARES[tools.target.kind]
    )
    masked = mask_squares(stream.grid[1], share, masking.block, rng or fixed(row)).repeat(
        stream.grid[0]
    )
    left = (
        features.length - int(masked.sum())
        if VISIBLE.intersection(stream.embedding)
        else features.length
    )
    return Features(features.data, left, F.pad(masked, (stream.specials, 0))), masked

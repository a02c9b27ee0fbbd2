"""ViLT (arXiv 2102.03334): the words of a text and the patches of a picture as one sequence through
ViT's encoder."""

from __future__ import annotations

from typing import Any

from skillweave.interop.huggingface.engine import rule, stacked
from skillweave.interop.huggingface.families import bert, vit
from skillweave.interop.huggingface.family import CLASSES, Family, Head

POOLER = "vilt.pooler.dense"
WORDS = "vilt.embeddings.text_embeddings.word_embeddings.weight"
TYPES = "vilt.embeddings.token_type_embeddings.weight"
SCORE = "mlm_score.transform"


def _ours(config: Any) -> dict[str, Any]:
    return {**vit.biases(config), "targets.multi_label.inner": 2 * config.hidden_size}


VILT = Family(
    "vilt",
    {**bert.SIZES, **vit.SIZES, "streams.text.max_length": "max_position_embeddings"},
    (
        *bert.embedding("vilt.embeddings.text_"),
        rule(f"{bert.TEXT}.modality_vector", stacked(TYPES, 0)),
        *vit.embedding("vilt."),
        rule(f"{vit.IMAGE}.modality_vector", stacked(TYPES, 1)),
        *vit.layers("vilt."),
    ),
    {
        "ViltModel": Head(
            {"pooled": {}},
            (rule("targets.pooled.pooler", POOLER),),
            unused=("mlm_score.", "itm_score.", "classifier."),
            optional="add_pooling_layer",
        ),
        "ViltForMaskedLM": Head(
            {"mlm": {}, "pooled": {}},  # theirs has a pooler in any case
            (
                rule("targets.pooled.pooler", POOLER),
                rule("targets.mlm.transform", f"{SCORE}.dense"),
                rule("targets.mlm.norm", f"{SCORE}.LayerNorm"),
                rule("targets.mlm.bias", "mlm_score.decoder.bias", "mlm_score.bias"),
            ),
            bert.ACTIVATION,
            {"mlm_score.decoder.weight": WORDS, "mlm_score.bias": "mlm_score.decoder.bias"},
            ("itm_score.",),
        ),
        "ViltForQuestionAnswering": Head(
            {"multi_label": {}},
            (
                rule("targets.multi_label.pooler", POOLER),
                rule("targets.multi_label.inner.0", "classifier.0"),
                rule("targets.multi_label.inner.1", "classifier.1"),
                rule("targets.multi_label.output", "classifier.3"),
            ),
            {"targets.multi_label.classes": CLASSES},
        ),
    },
    base="vilt.",
    constants={
        "streams.text.embedding": ["word", "position", "segment", "modality"],
        "streams.image.embedding": ["patch", "position", "modality"],
        "encoder.norm_position": "pre",
    },
    required={"num_channels": 3, "modality_type_vocab_size": 2, "max_image_length": -1},
    ours=_ours,
    theirs=vit.qkv_bias,
    spans=({"modality": "text"}, {"modality": "image"}),
    ignored=bert.IGNORED,
)

"""ELECTRA (arXiv 2003.10555): BERT with small embeddings, and a discriminator that finds the words
that a generator put in."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.engine import rule
from skillweave.interop.huggingface.families.bert import (
    BERT,
    CLASSIFIER,
    TEXT,
    embedding,
    layers,
    masked,
    per_token,
)
from skillweave.interop.huggingface.family import Head

GENERATOR = masked(
    "generator_predictions.dense",
    "generator_predictions.LayerNorm",
    "generator_lm_head.bias",
    "generator_lm_head",
    "electra.embeddings.word_embeddings.weight",
)
ELECTRA = replace(
    BERT,
    model_type="electra",
    fields={**BERT.fields, "streams.text.embedding_size": "embedding_size"},
    rules=(
        *embedding("electra."),
        rule(f"{TEXT}.projection", "electra.embeddings_project"),
        *layers("electra."),
    ),
    heads={
        **per_token("Electra"),
        "ElectraModel": Head(unused=("generator_", "discriminator_")),
        "ElectraForMaskedLM": replace(
            GENERATOR,
            tied={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
        ),
        "ElectraForPreTraining": Head(
            {"replaced": {}},
            (
                rule("targets.replaced.transform", "discriminator_predictions.dense"),
                rule("targets.replaced.classifier", "discriminator_predictions.dense_prediction"),
            ),
        ),
        "ElectraForSequenceClassification": Head(
            {"classification": {"activation": "gelu"}},
            (
                rule("targets.classification.pooler", "classifier.dense"),
                rule("targets.classification.classifier", "classifier.out_proj"),
            ),
            CLASSIFIER,
        ),
    },
    base="electra.",
)

"""ALBERT (arXiv 1909.11942): one block for all layers, and words in a space smaller than the
model's."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.engine import joined, rule
from skillweave.interop.huggingface.families.bert import (
    BERT,
    CLASSIFIER,
    TEXT,
    embedding,
    masked,
    per_token,
)
from skillweave.interop.huggingface.family import Head, activation

OURS, THEIRS = "encoder.blocks.{i}", "albert.encoder.albert_layer_groups.{i}.albert_layers.0"
PREDICTIONS = masked(
    "predictions.dense",
    "predictions.LayerNorm",
    "predictions.bias",
    "predictions.decoder",
    "albert.embeddings.word_embeddings.weight",
)
ALBERT = replace(
    BERT,
    model_type="albert",
    fields={
        **BERT.fields,
        "streams.text.embedding_size": "embedding_size",
        "encoder.distinct_layers": "num_hidden_groups",
    },
    rules=(
        *embedding("albert."),
        rule(f"{TEXT}.projection", "albert.encoder.embedding_hidden_mapping_in"),
        rule(
            f"{OURS}.attention.qkv.experts.shared",
            joined(*(f"{THEIRS}.attention.{x}" for x in ("query", "key", "value"))),
        ),
        rule(f"{OURS}.attention.output", f"{THEIRS}.attention.dense"),
        rule(f"{OURS}.attention_norm", f"{THEIRS}.attention.LayerNorm"),
        rule(f"{OURS}.feed_forward.experts.shared.inner", f"{THEIRS}.ffn"),
        rule(f"{OURS}.feed_forward.experts.shared.outer", f"{THEIRS}.ffn_output"),
        rule(f"{OURS}.feed_forward_norm", f"{THEIRS}.full_layer_layer_norm"),
    ),
    heads={
        **per_token("Albert", "albert.pooler."),
        "AlbertModel": Head(
            {"pooled": {}},
            (rule("targets.pooled.pooler", "albert.pooler"),),
            unused=("predictions.",),
            optional="add_pooling_layer",
        ),
        "AlbertForMaskedLM": replace(
            PREDICTIONS,
            fields={"targets.mlm.activation": activation("hidden_act")},
            unused=("albert.pooler.", "sop_classifier."),
        ),
        "AlbertForSequenceClassification": Head(
            {"classification": {}},
            (
                rule("targets.classification.pooler", "albert.pooler"),
                rule("targets.classification.classifier", "classifier"),
            ),
            CLASSIFIER,
        ),
    },
    base="albert.",
    required={**BERT.required, "inner_group_num": 1},
)

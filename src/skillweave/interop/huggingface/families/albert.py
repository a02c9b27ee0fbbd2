"""ALBERT (arXiv 1909.11942): BERT with word embeddings of fewer dimensions than the model, and with
layers that share their weights."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.families.bert import BERT, EMBEDDING, TEXT
from skillweave.interop.huggingface.family import Head
from skillweave.interop.rules import block_rules, joined

ALBERT = replace(
    BERT,
    model_type="albert",
    prefix="albert.",
    fields={
        **BERT.fields,
        "streams.text.embedding_size": "embedding_size",
        "encoder.distinct_layers": "num_hidden_groups",
    },
    rules={
        **EMBEDDING,
        f"{TEXT}.projection": "encoder.embedding_hidden_mapping_in",
        **block_rules(
            "encoder.blocks.{i}",
            "encoder.albert_layer_groups.{i}.albert_layers.0",
            qkv=joined("attention.query", "attention.key", "attention.value"),
            attention_output="attention.dense",
            attention_norm="attention.LayerNorm",
            inner="ffn",
            outer="ffn_output",
            feed_forward_norm="full_layer_layer_norm",
        ),
    },
    heads={
        "AlbertModel": Head.pooled("albert.pooler", "predictions."),
        "AlbertForMaskedLM": Head.masked_language_model(
            "predictions.dense",
            "predictions.LayerNorm",
            "predictions.bias",
            "predictions.decoder",
            "albert.embeddings.word_embeddings",
            "albert.pooler.",
            "sop_classifier.",
            activation_option="hidden_act",
        ),
        "AlbertForSequenceClassification": Head.classification(pooler="albert.pooler"),
        **Head.token_heads("Albert", "albert.pooler."),
    },
    required={**BERT.required, "inner_group_num": 1},
)
ALBERT.register()

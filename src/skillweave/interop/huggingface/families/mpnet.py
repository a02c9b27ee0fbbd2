"""MPNet (arXiv 2004.09297): RoBERTa with T5's relative positions as a bias that all layers
share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.families.bert import BERT, TEXT
from skillweave.interop.huggingface.family import Head, without
from skillweave.interop.rules import block_rules, qkv

OFFSET = 2
"""Positions begin behind the id of padding, which is always 1."""
BUCKETS = 32
"""Transformers computes buckets with this number, whatever the configuration says."""


def _read_options(config: Any) -> dict[str, Any]:
    return {"streams.text.max_length": config.max_position_embeddings - OFFSET}


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"max_position_embeddings": options["streams.text.max_length"] + OFFSET}


MPNET = replace(
    BERT,
    model_type="mpnet",
    prefix="mpnet.",
    fields=without(BERT.fields, "streams.text.segments", "streams.text.max_length"),
    rules={
        **without(BERT.rules, f"{TEXT}.positions.segment.table"),
        **block_rules(
            "encoder.blocks.{i}",
            "encoder.layer.{i}",
            qkv=qkv("attention.attn.{}"),
            attention_output="attention.attn.o",
            attention_norm="attention.LayerNorm",
            inner="intermediate.dense",
            outer="output.dense",
            feed_forward_norm="output.LayerNorm",
        ),
        "encoder.position.table": "encoder.relative_attention_bias",
    },
    heads={
        "MPNetModel": Head.pooled("mpnet.pooler.dense", "lm_head."),
        "MPNetForMaskedLM": Head.masked_language_model(
            "lm_head.dense",
            "lm_head.layer_norm",
            "lm_head.bias",
            "lm_head.decoder",
            "mpnet.embeddings.word_embeddings",
            "mpnet.pooler.",
        ),
        "MPNetForSequenceClassification": Head.classification(
            "classifier.out_proj", "classifier.dense", unused=("mpnet.pooler.",)
        ),
        **Head.token_heads("MPNet", "mpnet.pooler."),
    },
    constants={
        "streams.text.embedding": ["word", "position"],
        "streams.text.position_offset": OFFSET,
        "encoder.position.kind": "t5_bias",
        "encoder.position.buckets": BUCKETS,
        "encoder.position.max_distance": 128,
    },
    required={"pad_token_id": OFFSET - 1, "relative_attention_num_buckets": BUCKETS},
    read_options=_read_options,
    write_options=_write_options,
)
MPNET.register()

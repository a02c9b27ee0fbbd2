"""RoBERTa (arXiv 1907.11692) and XLM-R (arXiv 1911.02116): BERT with positions that begin behind
the id of padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.families.bert import BERT
from skillweave.interop.huggingface.family import Head, without


def _read_positions(config: Any) -> dict[str, Any]:
    offset = config.pad_token_id + 1
    return {
        "streams.text.position_offset": offset,
        "streams.text.max_length": config.max_position_embeddings - offset,
    }


def _write_positions(options: Mapping[str, Any]) -> dict[str, Any]:
    offset = options.get("streams.text.position_offset", 0)
    return {
        "pad_token_id": offset - 1,
        "max_position_embeddings": options["streams.text.max_length"] + offset,
    }


def _heads(name: str) -> dict[str, Head]:
    return {
        f"{name}Model": Head.pooled("roberta.pooler.dense", "lm_head."),
        f"{name}ForMaskedLM": Head.masked_language_model(
            "lm_head.dense",
            "lm_head.layer_norm",
            "lm_head.bias",
            "lm_head.decoder",
            "roberta.embeddings.word_embeddings",
            "roberta.pooler.",
        ),
        f"{name}ForSequenceClassification": Head.classification(
            "classifier.out_proj", "classifier.dense", unused=("roberta.pooler.",)
        ),
        **Head.token_heads(name, "roberta.pooler."),
    }


ROBERTA = replace(
    BERT,
    model_type="roberta",
    prefix="roberta.",
    fields=without(BERT.fields, "streams.text.max_length"),
    heads=_heads("Roberta"),
    read_options=_read_positions,
    write_options=_write_positions,
)
XLM_ROBERTA = replace(ROBERTA, model_type="xlm-roberta", heads=_heads("XLMRoberta"))
ROBERTA.register()
XLM_ROBERTA.register()

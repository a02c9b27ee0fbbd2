"""RoBERTa (arXiv 1907.11692) and XLM-R (arXiv 1911.02116): BERT whose positions are counted from
behind that of padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.engine import rule
from skillweave.interop.huggingface.families.bert import (
    BERT,
    CLASSIFIER,
    SIZES,
    embedding,
    layers,
    masked,
    per_token,
)
from skillweave.interop.huggingface.family import Family, Head

HEAD = masked(
    "lm_head.dense",
    "lm_head.layer_norm",
    "lm_head.bias",
    "lm_head.decoder",
    "roberta.embeddings.word_embeddings.weight",
)


def _ours(config: Any) -> dict[str, Any]:
    offset = config.pad_token_id + 1
    return {
        "streams.text.position_offset": offset,
        "streams.text.max_length": config.max_position_embeddings - offset,
    }


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    offset = ours.get("streams.text.position_offset", 0)
    return {
        "pad_token_id": offset - 1,
        "max_position_embeddings": ours["streams.text.max_length"] + offset,
    }


def _heads(name: str) -> dict[str, Head]:
    rules = (
        rule("targets.classification.pooler", "classifier.dense"),
        rule("targets.classification.classifier", "classifier.out_proj"),
    )
    return {
        f"{name}Model": Head(
            {"pooled": {}},
            (rule("targets.pooled.pooler", "roberta.pooler.dense"),),
            unused=("lm_head.",),
            optional="add_pooling_layer",
        ),
        f"{name}ForMaskedLM": replace(HEAD, unused=("roberta.pooler.",)),
        f"{name}ForSequenceClassification": Head(
            {"classification": {}}, rules, CLASSIFIER, unused=("roberta.pooler.",)
        ),
        **per_token(name, "roberta.pooler."),
    }


ROBERTA = replace(
    BERT,
    model_type="roberta",
    fields=SIZES,
    rules=(*embedding("roberta."), *layers("roberta.")),
    heads=_heads("Roberta"),
    base="roberta.",
    ours=_ours,
    theirs=_theirs,
)
XLM_ROBERTA = replace(ROBERTA, model_type="xlm-roberta", heads=_heads("XLMRoberta"))
FAMILIES: tuple[Family, ...] = (ROBERTA, XLM_ROBERTA)

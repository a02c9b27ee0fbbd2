"""RoBERTa (arXiv 1907.11692): BERT with positions that begin behind the id of padding. XLM-R (arXiv
1911.02116), CamemBERT (arXiv 1911.03894) and the text model of Data2Vec (arXiv 2202.03555) have the
same layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.families.bert import BERT
from skillweave.interop.huggingface.family import Family, Head, without


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


def _family(model_type: str, name: str, prefix: str = "roberta.") -> Family:
    """`name`: begins the names of the architectures. `prefix`: of the base model."""
    unused = f"{prefix}pooler."
    return replace(
        BERT,
        model_type=model_type,
        prefix=prefix,
        fields=without(BERT.fields, "streams.text.max_length"),
        heads={
            f"{name}Model": Head.pooled(f"{prefix}pooler.dense", "lm_head."),
            f"{name}ForMaskedLM": Head.masked_language_model(
                "lm_head.dense",
                "lm_head.layer_norm",
                "lm_head.bias",
                "lm_head.decoder",
                f"{prefix}embeddings.word_embeddings",
                unused,
            ),
            f"{name}ForSequenceClassification": Head.classification(
                "classifier.out_proj", "classifier.dense", unused=(unused,)
            ),
            **Head.token_heads(name, unused),
        },
        read_options=_read_positions,
        write_options=_write_positions,
    )


ROBERTA = _family("roberta", "Roberta")
XLM_ROBERTA = _family("xlm-roberta", "XLMRoberta")
CAMEMBERT = _family("camembert", "Camembert")
DATA2VEC_TEXT = _family("data2vec-text", "Data2VecText", "data2vec_text.")
for family in (ROBERTA, XLM_ROBERTA, CAMEMBERT, DATA2VEC_TEXT):
    family.register()

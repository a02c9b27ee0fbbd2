"""DeBERTa of versions 2 and 3 (arXiv 2006.03654, 2111.09543): BERT with disentangled attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.families.bert import BERT
from skillweave.interop.huggingface.family import Head, activation, without
from skillweave.interop.rules import Rules, alternatives, joined

POSITION = "encoder.position"
SELF = "encoder.layer.{i}.attention.self"
TERMS = ("c2p", "p2c")


def _faults(config: Any) -> Iterator[str]:
    width = config.hidden_size
    sizes = {
        "embedding_size": width,
        "pooler_hidden_size": width,
        "attention_head_size": width // config.num_attention_heads,
    }
    for name, expected in sizes.items():
        if (size := getattr(config, name, expected)) != expected:
            yield f"{name}={size} where hidden_size is {width}"
    terms = config.pos_att_type or []
    if set(terms) - set(TERMS) or bool(terms) != config.relative_attention:
        yield f"pos_att_type={terms} with relative_attention={config.relative_attention}"
    if config.relative_attention and not getattr(config, "share_att_key", False):
        yield "share_att_key=False, with projections of distances of their own,"


def _read_options(config: Any) -> dict[str, Any]:
    for fault in _faults(config):
        raise ConfigError(f"deberta-v2: {fault} has no counterpart here")
    used = {
        "word": True,
        "position": config.position_biased_input,
        "segment": config.type_vocab_size > 0,
    }
    found: dict[str, Any] = {"streams.text.embedding": [name for name in used if used[name]]}
    if used["segment"]:
        found["streams.text.segments"] = config.type_vocab_size
    if not config.relative_attention:
        return found
    longest, buckets = config.max_relative_positions, getattr(config, "position_buckets", -1)
    return {
        **found,
        f"{POSITION}.kind": "disentangled",
        f"{POSITION}.terms": [term for term in TERMS if term in config.pos_att_type],
        f"{POSITION}.buckets": buckets if buckets > 0 else None,
        f"{POSITION}.max_distance": longest if longest > 0 else config.max_position_embeddings,
        f"{POSITION}.norm": "layer_norm" in getattr(config, "norm_rel_ebd", "none").lower(),
    }


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    embedding = options["streams.text.embedding"]
    found = {
        "position_biased_input": "position" in embedding,
        "type_vocab_size": options["streams.text.segments"] if "segment" in embedding else 0,
        "relative_attention": options[f"{POSITION}.kind"] == "disentangled",
    }
    if not found["relative_attention"]:
        return found
    return {
        **found,
        "share_att_key": True,
        "pos_att_type": options[f"{POSITION}.terms"],
        "position_buckets": options[f"{POSITION}.buckets"] or -1,
        "max_relative_positions": options[f"{POSITION}.max_distance"],
        "norm_rel_ebd": "layer_norm" if options[f"{POSITION}.norm"] else "none",
    }


def _masked() -> Head:
    """The output layer of version 3 (`lm_predictions`) computes the same as the older one."""
    head = Head.masked_language_model(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
        "cls.predictions.decoder",
        "deberta.embeddings.word_embeddings",
        "lm_predictions.",
        "mask_predictions.",
        activation_option="hidden_act",
    )
    parts = {"transform": "dense", "norm": "LayerNorm", "bias": "bias"}
    later: Rules = {
        f"targets.mlm.{ours}": f"lm_predictions.lm_head.{name}" for ours, name in parts.items()
    }
    return replace(head, rules=alternatives(head.rules, later))


DEBERTA_V2 = replace(
    BERT,
    model_type="deberta-v2",
    prefix="deberta.",
    fields=without(BERT.fields, "streams.text.segments"),
    rules={
        **BERT.rules,
        "encoder.blocks.{i}.attention.qkv.experts.shared": joined(
            f"{SELF}.query_proj", f"{SELF}.key_proj", f"{SELF}.value_proj"
        ),
        f"{POSITION}.table": "encoder.rel_embeddings",
        f"{POSITION}.norm": "encoder.LayerNorm",
    },
    heads={
        "DebertaV2Model": Head(unused=("cls.", "lm_predictions.", "mask_predictions.")),
        "DebertaV2ForMaskedLM": _masked(),
        "DebertaV2ForSequenceClassification": Head.classification(
            pooler="pooler.dense",
            fields={"targets.classification.activation": activation("pooler_hidden_act")},
        ),
        **Head.token_heads("DebertaV2"),
    },
    # Versions 2 of size xlarge and above have a convolution beside the first layer.
    required={"conv_kernel_size": 0},
    read_options=_read_options,
    write_options=_write_options,
)
DEBERTA_V2.register()

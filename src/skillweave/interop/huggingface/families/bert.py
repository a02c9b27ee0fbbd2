"""BERT (arXiv 1810.04805) and the families whose layers have its names: RoBERTa, XLM-R, ELECTRA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.interop.huggingface.engine import Rule, joined, rule
from skillweave.interop.huggingface.family import CLASSES, Family, Field, Head, activation

TEXT = "embeddings.text"
ENCODER: Mapping[str, str | Field] = {
    "width": "hidden_size",
    "encoder.layers": "num_hidden_layers",
    "encoder.heads": "num_attention_heads",
    "encoder.feed_forward": "intermediate_size",
    "encoder.activation": activation("hidden_act"),
    "encoder.norm_epsilon": "layer_norm_eps",
    "encoder.dropout": "hidden_dropout_prob",
    "encoder.attention_dropout": "attention_probs_dropout_prob",
}
SIZES = {
    **ENCODER,
    "streams.text.vocabulary": "vocab_size",
    "streams.text.segments": "type_vocab_size",
}
REQUIRED = {
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
}
CLASSIFIER = {"targets.classification.classes": CLASSES}
IGNORED = (r"(^|\.)position_ids$", r"(^|\.)token_type_ids$")


def embedding(base: str) -> tuple[Rule, ...]:
    """Words, positions, segments and their norm."""
    return (
        rule(f"{TEXT}.content.word", f"{base}embeddings.word_embeddings"),
        rule(f"{TEXT}.positions.position.table", f"{base}embeddings.position_embeddings"),
        rule(f"{TEXT}.positions.segment.table", f"{base}embeddings.token_type_embeddings"),
        rule(f"{TEXT}.norm", f"{base}embeddings.LayerNorm"),
    )


def layers(base: str) -> tuple[Rule, ...]:
    """The blocks."""
    ours, theirs = "encoder.blocks.{i}", base + "encoder.layer.{i}"
    return (
        rule(
            f"{ours}.attention.qkv.experts.shared",
            joined(*(f"{theirs}.attention.self.{x}" for x in ("query", "key", "value"))),
        ),
        rule(f"{ours}.attention.output", f"{theirs}.attention.output.dense"),
        rule(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm"),
        rule(f"{ours}.feed_forward.experts.shared.inner", f"{theirs}.intermediate.dense"),
        rule(f"{ours}.feed_forward.experts.shared.outer", f"{theirs}.output.dense"),
        rule(f"{ours}.feed_forward_norm", f"{theirs}.output.LayerNorm"),
    )


def masked(transform: str, norm: str, bias: str, output: str, words: str, **fixed: Any) -> Head:
    """Masked language modelling: the names of the dense layer before it, its norm, the bias and the
    tied output layer."""
    rules = (
        rule("targets.mlm.transform", transform),
        rule("targets.mlm.norm", norm),
        rule("targets.mlm.bias", bias),
    )
    tied = {f"{output}.weight": words, f"{output}.bias": bias}
    return Head({"mlm": fixed}, rules, tied=tied)


PREDICTIONS = masked(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.bias",
    "cls.predictions.decoder",
    "bert.embeddings.word_embeddings.weight",
)
ACTIVATION = {"targets.mlm.activation": activation("hidden_act")}


def per_token(
    name: str, *unused: str, labels: str = "classifier", base: str = ""
) -> dict[str, Head]:
    """Labels of words, by the module `labels`, and where an answer begins and ends; `base`: of the
    latter, if it is another."""
    classes = {"targets.token_labels.classes": CLASSES}
    ends = (rule("targets.span.classifier", "qa_outputs"),)
    return {
        f"{name}ForTokenClassification": Head(
            {"token_labels": {}},
            (rule("targets.token_labels.classifier", labels),),
            classes,
            {},
            unused,
        ),
        f"{name}ForQuestionAnswering": Head({"span": {}}, ends, {}, {}, unused, base=base),
    }


POOLER = rule("targets.classification.pooler", "bert.pooler.dense")
HEADS = {
    "BertModel": Head(
        {"pooled": {}},
        (rule("targets.pooled.pooler", "bert.pooler.dense"),),
        unused=("cls.",),
        optional="add_pooling_layer",
    ),
    "BertForMaskedLM": Head(
        {"mlm": {}},
        PREDICTIONS.rules,
        ACTIVATION,
        PREDICTIONS.tied,
        ("bert.pooler.", "cls.seq_relationship."),
    ),
    "BertForPreTraining": Head(
        {"mlm": {}, "classification": {"classes": ["next", "random"]}},
        (
            *PREDICTIONS.rules,
            POOLER,
            rule("targets.classification.classifier", "cls.seq_relationship"),
        ),
        ACTIVATION,
        PREDICTIONS.tied,
    ),
    "BertForSequenceClassification": Head(
        {"classification": {}},
        (POOLER, rule("targets.classification.classifier", "classifier")),
        CLASSIFIER,
    ),
    **per_token("Bert", "bert.pooler."),
}
BERT = Family(
    "bert",
    {**SIZES, "streams.text.max_length": "max_position_embeddings"},
    (*embedding("bert."), *layers("bert.")),
    HEADS,
    base="bert.",
    required=REQUIRED,
    ignored=IGNORED,
)

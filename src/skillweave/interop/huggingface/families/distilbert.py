"""DistilBERT (arXiv 1910.01108): half of BERT's layers, without segments."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.engine import joined, rule
from skillweave.interop.huggingface.families.bert import (
    CLASSIFIER,
    IGNORED,
    embedding,
    masked,
    per_token,
)
from skillweave.interop.huggingface.family import Family, Head, activation

OURS, THEIRS = "encoder.blocks.{i}", "distilbert.transformer.layer.{i}"
PROJECTOR = masked(
    "vocab_transform",
    "vocab_layer_norm",
    "vocab_projector.bias",
    "vocab_projector",
    "distilbert.embeddings.word_embeddings.weight",
)
DISTILBERT = Family(
    "distilbert",
    {
        "width": "dim",
        "streams.text.vocabulary": "vocab_size",
        "streams.text.max_length": "max_position_embeddings",
        "encoder.layers": "n_layers",
        "encoder.heads": "n_heads",
        "encoder.feed_forward": "hidden_dim",
        "encoder.activation": activation("activation"),
        "encoder.dropout": "dropout",
        "encoder.attention_dropout": "attention_dropout",
    },
    (
        *embedding("distilbert."),
        rule(
            f"{OURS}.attention.qkv.experts.shared",
            joined(*(f"{THEIRS}.attention.{x}_lin" for x in "qkv")),
        ),
        rule(f"{OURS}.attention.output", f"{THEIRS}.attention.out_lin"),
        rule(f"{OURS}.attention_norm", f"{THEIRS}.sa_layer_norm"),
        rule(f"{OURS}.feed_forward.experts.shared.inner", f"{THEIRS}.ffn.lin1"),
        rule(f"{OURS}.feed_forward.experts.shared.outer", f"{THEIRS}.ffn.lin2"),
        rule(f"{OURS}.feed_forward_norm", f"{THEIRS}.output_layer_norm"),
    ),
    {
        "DistilBertModel": Head(unused=("vocab_",)),
        **per_token("DistilBert"),
        "DistilBertForMaskedLM": replace(
            PROJECTOR,
            fields={"targets.mlm.activation": activation("activation")},
            tied={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
        ),
        "DistilBertForSequenceClassification": Head(
            {"classification": {"activation": "relu"}},
            (
                rule("targets.classification.pooler", "pre_classifier"),
                rule("targets.classification.classifier", "classifier"),
            ),
            CLASSIFIER,
        ),
    },
    base="distilbert.",
    constants={"streams.text.embedding": ["word", "position"]},
    ignored=IGNORED,
)

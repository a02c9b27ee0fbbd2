"""DistilBERT (arXiv 1910.01108): BERT without segments."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.families.bert import BERT, EMBEDDING
from skillweave.interop.huggingface.family import Head, activation, prefixed
from skillweave.interop.rules import block_rules, qkv

DISTILBERT = replace(
    BERT,
    model_type="distilbert",
    prefix="distilbert.",
    fields={
        "width": "dim",
        "streams.text.vocabulary": "vocab_size",
        "streams.text.max_length": "max_position_embeddings",
        **prefixed(
            "encoder",
            layers="n_layers",
            heads="n_heads",
            feed_forward="hidden_dim",
            activation=activation("activation"),
            dropout="dropout",
            attention_dropout="attention_dropout",
        ),
    },
    rules={
        **EMBEDDING,
        **block_rules(
            "encoder.blocks.{i}",
            "transformer.layer.{i}",
            qkv=qkv("attention.{}_lin"),
            attention_output="attention.out_lin",
            attention_norm="sa_layer_norm",
            inner="ffn.lin1",
            outer="ffn.lin2",
            feed_forward_norm="output_layer_norm",
        ),
    },
    heads={
        "DistilBertModel": Head(unused=("vocab_",)),
        "DistilBertForMaskedLM": Head.masked_language_model(
            "vocab_transform",
            "vocab_layer_norm",
            "vocab_projector.bias",
            "vocab_projector",
            "distilbert.embeddings.word_embeddings",
            activation_option="activation",
        ),
        "DistilBertForSequenceClassification": Head.classification(
            pooler="pre_classifier", options={"activation": "relu"}
        ),
        **Head.token_heads("DistilBert"),
    },
    constants={"streams.text.embedding": ["word", "position"]},
)
DISTILBERT.register()

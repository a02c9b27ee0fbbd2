"""ELECTRA (arXiv 2003.10555): BERT with small word embeddings, and a discriminator that finds the
words that a generator replaced."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.families.bert import BERT, TEXT
from skillweave.interop.huggingface.family import Head, activation

ELECTRA = replace(
    BERT,
    model_type="electra",
    prefix="electra.",
    fields={**BERT.fields, "streams.text.embedding_size": "embedding_size"},
    rules={
        **BERT.rules,
        f"{TEXT}.projection": "embeddings_project",
    },
    heads={
        "ElectraModel": Head(unused=("generator_", "discriminator_")),
        "ElectraForMaskedLM": Head.masked_language_model(
            "generator_predictions.dense",
            "generator_predictions.LayerNorm",
            "generator_lm_head.bias",
            "generator_lm_head",
            "electra.embeddings.word_embeddings",
        ),
        "ElectraForPreTraining": Head(
            targets={"replaced": {}},
            fields={"targets.replaced.activation": activation("hidden_act")},
            rules={
                "targets.replaced.transform": "discriminator_predictions.dense",
                "targets.replaced.classifier": "discriminator_predictions.dense_prediction",
            },
        ),
        "ElectraForSequenceClassification": Head.classification(
            "classifier.out_proj", "classifier.dense", options={"activation": "gelu"}
        ),
        **Head.token_heads("Electra"),
    },
)
ELECTRA.register()

"""BERT (arXiv 1810.04805). RoBERTa, ALBERT, ELECTRA and DistilBERT are built on it."""

from __future__ import annotations

from skillweave.interop.huggingface.family import Family, Fields, Head, activation, prefixed
from skillweave.interop.rules import Rules, block_rules, joined

TEXT = "embeddings.text"
ENCODER: Fields = {
    "width": "hidden_size",
    **prefixed(
        "encoder",
        layers="num_hidden_layers",
        heads="num_attention_heads",
        feed_forward="intermediate_size",
        activation=activation("hidden_act"),
        norm_epsilon="layer_norm_eps",
        dropout="hidden_dropout_prob",
        attention_dropout="attention_probs_dropout_prob",
    ),
}


EMBEDDING: Rules = {
    f"{TEXT}.content.word": "embeddings.word_embeddings",
    f"{TEXT}.positions.position.table": "embeddings.position_embeddings",
    f"{TEXT}.positions.segment.table": "embeddings.token_type_embeddings",
    f"{TEXT}.norm": "embeddings.LayerNorm",
}
LAYERS = block_rules(
    "encoder.blocks.{i}",
    "encoder.layer.{i}",
    qkv=joined("attention.self.query", "attention.self.key", "attention.self.value"),
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    inner="intermediate.dense",
    outer="output.dense",
    feed_forward_norm="output.LayerNorm",
)
MASKED = Head.masked_language_model(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.bias",
    "cls.predictions.decoder",
    "bert.embeddings.word_embeddings",
    "bert.pooler.",
    "cls.seq_relationship.",
    activation_option="hidden_act",
)
POOLER = "bert.pooler.dense"
BERT = Family(
    model_type="bert",
    prefix="bert.",
    fields={
        **ENCODER,
        "streams.text.vocabulary": "vocab_size",
        "streams.text.segments": "type_vocab_size",
        "streams.text.max_length": "max_position_embeddings",
    },
    rules={**EMBEDDING, **LAYERS},
    heads={
        "BertModel": Head.pooled(POOLER, "cls."),
        "BertForMaskedLM": MASKED,
        "BertForPreTraining": Head(
            targets={"mlm": {}, "classification": {"classes": ["next", "random"]}},
            rules={
                **MASKED.rules,
                "targets.classification.pooler": POOLER,
                "targets.classification.classifier": "cls.seq_relationship",
            },
            fields=MASKED.fields,
            tied=MASKED.tied,
        ),
        "BertForSequenceClassification": Head.classification(pooler=POOLER),
        **Head.token_heads("Bert", "bert.pooler."),
    },
    required={
        "is_decoder": False,
        "add_cross_attention": False,
        "position_embedding_type": "absolute",
    },
    ignored=(r"(^|\.)position_ids$", r"(^|\.)token_type_ids$"),
)
BERT.register()

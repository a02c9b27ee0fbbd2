"""ModernBERT (arXiv 2412.13663): pre-norm with rotary positions, gated feed-forwards, windows in
most layers, and a dense layer with a norm before each output layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.interop.huggingface.families.gemma import read_two_rotary, write_two_rotary
from skillweave.interop.huggingface.families.llama import (
    read_biases,
    read_windows,
    write_biases,
    write_layer_types,
)
from skillweave.interop.huggingface.family import (
    CLASSES,
    Family,
    Field,
    Fields,
    Head,
    activation,
    prefixed,
)
from skillweave.interop.rules import Rules, block_rules

POOLINGS = {"cls": "first", "mean": "mean"}
POOLING = Field(
    "classifier_pooling",
    POOLINGS.__getitem__,
    {ours: theirs for theirs, ours in POOLINGS.items()}.__getitem__,
)


def _head(kind: str, output: Rules, fields: Fields, **others: Any) -> Head:
    """A head with the transform before the output layer."""
    transform = f"targets.{kind}.{'last' if kind == 'classification' else 'transform'}"
    return Head(
        targets={kind: {"hidden": False} if kind == "classification" else {}},
        rules={f"{transform}.dense": "head.dense", f"{transform}.norm": "head.norm", **output},
        fields={
            f"targets.{kind}.transform.activation": activation("classifier_activation"),
            f"targets.{kind}.transform.norm_epsilon": "norm_eps",
            **fields,
        },
        **others,
    )


def _read_options(config: Any) -> dict[str, Any]:
    norm = ["norm"] if config.norm_bias else []
    dense = ["dense"] if config.classifier_bias else []
    transform = ["transform"] if config.classifier_bias else []
    output = ["output"] if config.decoder_bias else []
    return {
        **read_two_rotary(config),
        **read_windows(config, config.local_attention // 2 + 1),
        "encoder.biases": [*read_biases(config), *norm],
        "targets.mlm.biases": [*transform, *norm, *output],
        **{
            f"targets.{kind}.transform.biases": [*dense, *norm]
            for kind in ("classification", "token_labels", "span")
        },
    }


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    window = options["encoder.window"]
    biases = {
        name
        for path, given in options.items()
        if path.startswith("targets.") and path.endswith(".biases")
        for name in given
    }
    return {
        **write_biases(options),
        "rope_parameters": write_two_rotary(options),
        "layer_types": write_layer_types(options),
        "norm_bias": "norm" in options["encoder.biases"],
        "classifier_bias": bool(biases & {"transform", "dense"}),
        "decoder_bias": "output" in biases,
        **({} if window is None else {"local_attention": 2 * (window - 1)}),
    }


MODERNBERT = Family(
    model_type="modernbert",
    prefix="model.",
    fields={
        "width": "hidden_size",
        "streams.text.vocabulary": "vocab_size",
        "streams.text.max_length": "max_position_embeddings",
        **prefixed(
            "encoder",
            layers="num_hidden_layers",
            heads="num_attention_heads",
            feed_forward="intermediate_size",
            activation=activation("hidden_activation"),
            norm_epsilon="norm_eps",
            dropout="embedding_dropout",
            attention_dropout="attention_dropout",
            activation_dropout="mlp_dropout",
        ),
    },
    rules={
        "embeddings.text.content.word": "embeddings.tok_embeddings",
        "embeddings.text.norm": "embeddings.norm",
        **block_rules(
            "encoder.blocks.{i}",
            "layers.{i}",
            qkv="attn.Wqkv",
            attention_output="attn.Wo",
            attention_norm="attn_norm",
            inner="mlp.Wi",
            outer="mlp.Wo",
            feed_forward_norm="mlp_norm",
        ),
        "encoder.last_norm": "final_norm",
    },
    heads={
        "ModernBertModel": Head(unused=("head.", "decoder.")),
        "ModernBertForMaskedLM": Head(
            targets={"mlm": {}},
            rules={
                "targets.mlm.transform": "head.dense",
                "targets.mlm.norm": "head.norm",
                "targets.mlm.bias": "decoder.bias",
            },
            fields={"targets.mlm.activation": activation("classifier_activation")},
            required={"tie_word_embeddings": True},
            tied={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
        ),
        "ModernBertForSequenceClassification": _head(
            "classification",
            {"targets.classification.classifier": "classifier"},
            {"targets.classification.classes": CLASSES, "targets.classification.pooling": POOLING},
            required={"problem_type": "single_label_classification"},
        ),
        "ModernBertForTokenClassification": _head(
            "token_labels",
            {"targets.token_labels.classifier": "classifier"},
            {"targets.token_labels.classes": CLASSES},
        ),
        "ModernBertForQuestionAnswering": _head(
            "span", {"targets.span.classifier": "classifier"}, {}
        ),
    },
    constants={
        "streams.text.embedding": ["word"],
        **prefixed("encoder", norm_position="pre", first_norm=False, gated=True),
    },
    read_options=_read_options,
    write_options=_write_options,
)
MODERNBERT.register()

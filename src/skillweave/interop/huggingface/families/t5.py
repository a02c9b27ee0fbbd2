"""T5 (arXiv 1910.10683) and its version 1.1: relative positions as a bias, RMS norms, no other
biases, and attention scores that are not scaled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.family import (
    SEARCH,
    Family,
    Fields,
    Head,
    prefixed,
    read_activation,
    write_activation,
)
from skillweave.interop.rules import (
    Rules,
    block_rules,
    cross_attention_rules,
    joined,
    qkv,
)

SIDES = ("encoder", "decoder")
SPANS = (
    {"modality": "text"},
    {"modality": "text", "role": "target", "attention": "causal", "encoder_pass": 1},
)
"""What the encoder reads, and what the decoder reads in a pass of its own."""
TIED = {
    name: "shared.weight"
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
}


def _fields(side: str, stream: str, layers: str) -> Fields:
    options = {
        "layers": layers,
        "heads": "num_heads",
        "head_size": "d_kv",
        "feed_forward": "d_ff",
        "norm_epsilon": "layer_norm_epsilon",
        "dropout": "dropout_rate",
        "attention_dropout": "dropout_rate",
        "position.buckets": "relative_attention_num_buckets",
        "position.max_distance": "relative_attention_max_distance",
    }
    return {f"{stream}.vocabulary": "vocab_size", **prefixed(side, **options)}


def _constants(side: str, stream: str) -> dict[str, Any]:
    options = {
        "position.kind": "t5_bias",
        "norm": "rms",
        "norm_position": "pre",
        "scale_attention": False,
        "biases": [],
    }
    return {
        **prefixed(stream, embedding=["word"], norm=False),
        **prefixed(side, **options),
    }


def _layers(side: str, feed_forward: int) -> Rules:
    """Rules for the encoder or decoder. `feed_forward`: number of this layer in a block."""
    attention, dense = "0.SelfAttention", f"{feed_forward}.DenseReluDense"
    return {
        **block_rules(
            f"{side}.blocks.{{i}}",
            f"{side}.block.{{i}}.layer",
            qkv=qkv(f"{attention}.{{}}"),
            attention_output=f"{attention}.o",
            attention_norm="0.layer_norm",
            inner=[f"{dense}.wi", joined(f"{dense}.wi_0", f"{dense}.wi_1")],
            outer=f"{dense}.wo",
            feed_forward_norm=f"{feed_forward}.layer_norm",
        ),
        f"{side}.position.table": f"{side}.block.0.layer.{attention}.relative_attention_bias",
        f"{side}.last_norm": f"{side}.final_layer_norm",
    }


def _read_options(*sides: str) -> Callable[[Any], dict[str, Any]]:
    def read(config: Any) -> dict[str, Any]:
        options = {"activation": read_activation(config.dense_act_fn), "gated": config.is_gated_act}
        found = {}
        for side in sides:
            found |= prefixed(side, **options)
        return found

    return read


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    name = write_activation(options["encoder.activation"])
    if options["encoder.gated"]:
        name = "gated-gelu" if name == "gelu_new" else f"gated-{name}"
    # The weights say whether the output layer is tied, the option whether its inputs are scaled.
    scaled = options.get("targets.lm.scaled", True)
    return {"feed_forward_proj": name, "tie_word_embeddings": scaled}


def last_token_classification(tied: Mapping[str, str], **others: Any) -> Head:
    """A class from the last token of the decoder, which reads the text again (BART section 3.1)."""
    return Head.classification(
        "classification_head.out_proj",
        "classification_head.dense",
        options={"pooling": "last"},
        tied=tied,
        ends_text=True,
        **others,
    )


ENCODER = Family(
    model_type="t5",
    fields={"width": "d_model", **_fields("encoder", "streams.text", "num_layers")},
    rules={"embeddings.text.content.word": "shared", **_layers("encoder", 1)},
    constants=_constants("encoder", "streams.text"),
    read_options=_read_options("encoder"),
    write_options=_write_options,
    spans=SPANS[:1],
    ignored=(r"EncDecAttention\.relative_attention_bias",),
)


def heads(name: str, encoder: Family, **generation: Any) -> dict[str, Head]:
    """The architectures of T5 or mT5. `encoder`: the family of those without a decoder.
    `generation`: options of the head that writes text."""
    return {
        f"{name}ForConditionalGeneration": Head.written_text(
            TIED, "lm_head", generation=SEARCH, **generation
        ),
        f"{name}Model": Head(tied=TIED, unused=("lm_head.",), ends_text=True),
        f"{name}ForSequenceClassification": last_token_classification(TIED, prefix="transformer."),
        f"{name}ForQuestionAnswering": Head.question_answering(tied=TIED, ends_text=True),
        f"{name}EncoderModel": Head(tied=TIED, family=encoder),
        f"{name}ForTokenClassification": Head.token_classification(
            tied=TIED, family=encoder, prefix="transformer."
        ),
    }


T5 = replace(
    ENCODER,
    fields={
        **ENCODER.fields,
        **_fields("decoder", "target_embedding", "num_decoder_layers"),
    },
    rules={
        **ENCODER.rules,
        **_layers("decoder", 2),
        **cross_attention_rules(
            "decoder.block.{i}.layer.1",
            query="EncDecAttention.q",
            key="EncDecAttention.k",
            value="EncDecAttention.v",
            output="EncDecAttention.o",
            norm="layer_norm",
        ),
    },
    heads=heads("T5", ENCODER, fields={"targets.lm.scaled": "scale_decoder_outputs"}),
    constants={**ENCODER.constants, **_constants("decoder", "target_embedding")},
    read_options=_read_options(*SIDES),
    spans=SPANS,
)
T5.register()

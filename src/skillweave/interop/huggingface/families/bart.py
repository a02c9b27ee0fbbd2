"""BART (arXiv 1910.13461): an encoder and a decoder, both post-norm; and Pegasus (arXiv
1912.08777), where both are pre-norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.interop.huggingface.families.t5 import SIDES, SPANS, last_token_classification
from skillweave.interop.huggingface.family import SEARCH, Family, Head, activation, prefixed
from skillweave.interop.rules import (
    Rules,
    block_rules,
    cross_attention_rules,
    joined,
    qkv,
    reshaped,
)

STREAMS = {"encoder": "streams.text", "decoder": "target_embedding"}
WORDS = "model.shared"


def sizes(side: str) -> dict[str, Any]:
    """Fields of the encoder or decoder."""
    return prefixed(
        side,
        layers=f"{side}_layers",
        heads=f"{side}_attention_heads",
        feed_forward=f"{side}_ffn_dim",
        activation=activation("activation_function"),
        dropout="dropout",
        attention_dropout="attention_dropout",
        activation_dropout="activation_dropout",
    )


def layers(side: str) -> Rules:
    """Rules for the blocks of the encoder or decoder, with the names of fairseq."""
    attention = f"{side}.layers.{{i}}.self_attn"
    return {
        **block_rules(
            f"{side}.blocks.{{i}}",
            f"{side}.layers.{{i}}",
            qkv=qkv("self_attn.{}_proj"),
            attention_output="self_attn.out_proj",
            attention_norm="self_attn_layer_norm",
            inner="fc1",
            outer="fc2",
            feed_forward_norm="final_layer_norm",
        ),
        f"{side}.blocks.{{i}}.attention.bias": joined(
            f"{attention}.q_proj.bias", f"{attention}.v_proj.bias"
        ),
    }


def cross_attention() -> Rules:
    """Rules for the attention of the decoder to the encoder."""
    block = "decoder.layers.{i}"
    return {
        **cross_attention_rules(
            block,
            query="encoder_attn.q_proj",
            key="encoder_attn.k_proj",
            value="encoder_attn.v_proj",
            output="encoder_attn.out_proj",
            norm="encoder_attn_layer_norm",
        ),
        "decoder.blocks.{i}.cross.attention.value_bias": f"{block}.encoder_attn.v_proj.bias",
    }


def _rules() -> Rules:
    rules: Rules = {"embeddings.text.content.word": "shared", **cross_attention()}
    for side, stream in (("encoder", "embeddings.text"), ("decoder", "target_embedding")):
        rules |= {
            f"{stream}.positions.position.table": f"{side}.embed_positions",
            f"{stream}.norm": f"{side}.layernorm_embedding",
            **layers(side),
            f"{side}.last_norm": f"{side}.layer_norm",
        }
    return rules


TIED = {f"model.{side}.embed_tokens.weight": f"{WORDS}.weight" for side in SIDES}


def generation_heads(name: str, generator: str = "") -> dict[str, Head]:
    """Heads of a family whose architectures begin with `name`. `generator`: the architecture that
    writes texts, if it is not `{name}ForConditionalGeneration`."""
    return {
        f"{name}Model": Head(tied=TIED, unused=("lm_head.", "final_logits_bias"), ends_text=True),
        generator or f"{name}ForConditionalGeneration": Head.written_text(
            {**TIED, "lm_head.weight": f"{WORDS}.weight"},
            "lm_head",
            options={"bias": True},
            rules={"targets.lm.bias": reshaped("final_logits_bias")},
            generation=SEARCH,
        ),
    }


def sequence_to_sequence(
    model_type: str,
    heads: Mapping[str, Head],
    stream_constants: Mapping[str, Any],
    side_constants: Mapping[str, Any],
) -> Family:
    """A family with the names of BART. `stream_constants`, `side_constants`: options that it fixes
    for the embeddings, and for encoder and decoder."""
    fields: dict[str, Any] = {"width": "d_model"}
    constants: dict[str, Any] = {}
    for side, stream in STREAMS.items():
        fields |= sizes(side)
        fields |= prefixed(
            stream,
            vocabulary="vocab_size",
            max_length="max_position_embeddings",
            scale_embedding="scale_embedding",
        )
        constants |= prefixed(stream, **{"embedding": ["word", "position"], **stream_constants})
        constants |= prefixed(side, norm_epsilon=1e-5, **side_constants)
    return Family(
        model_type=model_type,
        prefix="model.",
        fields=fields,
        rules=_rules(),
        heads=heads,
        constants=constants,
        required={"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "tie_word_embeddings": True},
        write_options=lambda options: {"forced_eos_token_id": None},
        spans=SPANS,
    )


BART = sequence_to_sequence(
    "bart",
    {
        **generation_heads("Bart"),
        "BartForSequenceClassification": last_token_classification(TIED),
        "BartForQuestionAnswering": Head.question_answering(tied=TIED, ends_text=True),
    },
    stream_constants={"position_offset": 2},
    side_constants={},
)
# Its tables of positions hold sines and cosines, which Transformers does not train.
PEGASUS = sequence_to_sequence(
    "pegasus",
    generation_heads("Pegasus"),
    stream_constants={"norm": False},
    side_constants={"norm_position": "pre"},
)
BART.register()
PEGASUS.register()

"""Gemma 2 (arXiv 2408.00118) and Gemma 3 for text (arXiv 2503.19786): LLaMA with scaled word
embeddings, norms of the weight 1 + w around each sublayer, and windows in most layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.families.gpt2 import LAST_TOKEN
from skillweave.interop.huggingface.families.llama import (
    BLOCK,
    FULL,
    HF_BLOCK,
    LLAMA,
    SLIDING,
    causal_heads,
    read_biases,
    read_rotary,
    read_windows,
    write_biases,
    write_layer_types,
    write_rotary,
)
from skillweave.interop.huggingface.family import Family, Field, Fields, Head, activation, without

GLOBAL = "encoder.global_position"
BIDIRECTIONAL = "use_bidirectional_attention"
CAP: Fields = {"targets.lm.softcap": "final_logit_softcapping"}


def read_two_rotary(config: Any) -> dict[str, Any]:
    """Our positions for `rope_parameters` of layers with windows and of layers without."""
    given = config.rope_parameters
    if len(set(config.layer_types)) == 1:
        return read_rotary(config, given=given[config.layer_types[0]])
    local, wide = given[SLIDING], given[FULL]
    return {**read_rotary(config, given=local), **read_rotary(config, GLOBAL, wide)}


def write_two_rotary(options: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_parameters` of layers with windows and of layers without."""
    both = f"{GLOBAL}.kind" not in options
    local = write_rotary(options)
    return {SLIDING: local, FULL: local if both else write_rotary(options, GLOBAL)}


def _family(
    model_type: str,
    fields: Fields,
    heads: Mapping[str, Head],
    read: Callable[[Any], Mapping[str, Any]],
    write: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    **others: Any,
) -> Family:
    """`read`, `write`: `rope_parameters`."""
    return replace(
        LLAMA,
        model_type=model_type,
        fields={
            **LLAMA.fields,
            "encoder.activation": activation("hidden_activation"),
            "encoder.scale_size": Field("query_pre_attn_scalar", write=int),
            **fields,
        },
        rules={
            **LLAMA.rules,
            f"{BLOCK}.attention_residual.norm": f"{HF_BLOCK}.post_attention_layernorm",
            f"{BLOCK}.feed_forward_norm": f"{HF_BLOCK}.pre_feedforward_layernorm",
            f"{BLOCK}.feed_forward_residual.norm": f"{HF_BLOCK}.post_feedforward_layernorm",
        },
        heads=heads,
        constants={
            **LLAMA.constants,
            "streams.text.scale_embedding": True,
            "encoder.norm": "zero_centered_rms",
            "encoder.norm_position": "sandwich",
            **others,
        },
        required={BIDIRECTIONAL: False},
        read_options=lambda config: {
            **read(config),
            **read_windows(config, config.sliding_window),
            "encoder.biases": read_biases(config),
        },
        write_options=lambda options: {
            "rope_parameters": write(options),
            "layer_types": write_layer_types(options),
            "sliding_window": options["encoder.window"],
            **without(write_biases(options), "mlp_bias"),
        },
    )


def _causal(name: str) -> Head:
    head = causal_heads(name)[f"{name}ForCausalLM"]
    return replace(head, fields={**head.fields, **CAP})


def _write_direction(options: Mapping[str, Any]) -> dict[str, Any]:
    """Gemma 3 that attends in both directions (EmbeddingGemma, arXiv 2509.20354) gives the window
    of both together."""
    found = dict(GEMMA3_TEXT_CAUSAL.write_options(options))
    if not options["streams.text.causal"]:
        window = found.pop("sliding_window")
        both = {} if window is None else {"sliding_window": 2 * (window - 1)}
        found |= {BIDIRECTIONAL: True, **both}
    return found


GEMMA2 = _family(
    "gemma2",
    {"encoder.attention_softcap": "attn_logit_softcapping"},
    {
        **without(causal_heads("Gemma2"), "Gemma2ForQuestionAnswering"),
        "Gemma2ForCausalLM": _causal("Gemma2"),
    },
    read_rotary,
    write_rotary,
)
GEMMA3_TEXT_CAUSAL = _family(
    "gemma3_text",
    {},
    {
        "Gemma3TextModel": causal_heads("Gemma3")["Gemma3Model"],
        "Gemma3ForCausalLM": _causal("Gemma3"),
        "Gemma3TextForSequenceClassification": LAST_TOKEN,
    },
    read_two_rotary,
    write_two_rotary,
    **{"encoder.qk_norm": True},
)
GEMMA3_TEXT = replace(
    GEMMA3_TEXT_CAUSAL,
    # Transformers does not apply it, so what the checkpoint expects is not known.
    required={"attn_logit_softcapping": None},
    bidirectional=BIDIRECTIONAL,
    write_options=_write_direction,
)
GEMMA2.register()
GEMMA3_TEXT.register()

"""LLaMA (arXiv 2302.13971) and models with the same layers: Mistral, Qwen 2 and 3, and, with
experts, Mixtral (arXiv 2401.04088) and Qwen3-MoE (arXiv 2505.09388)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.families.gpt2 import CAUSAL, LAST_TOKEN
from skillweave.interop.huggingface.family import Family, Head, activation, prefixed, without
from skillweave.interop.rules import Rules, block_rules, joined, qkv, stacked

BLOCK, HF_BLOCK = "encoder.blocks.{i}", "layers.{i}"
POSITION = "encoder.position"
LINEAR = {"factor": "factor"}
LLAMA3 = {
    **LINEAR,
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "original_length": "original_max_position_embeddings",
}
YARN = {
    **LINEAR,
    "fast_rotations": "beta_fast",
    "slow_rotations": "beta_slow",
    "attention_factor": "attention_factor",
    "original_length": "original_max_position_embeddings",
}
LONG_ROPE = {
    "short_factors": "short_factor",
    "long_factors": "long_factor",
    "attention_factor": "attention_factor",
    "original_length": "original_max_position_embeddings",
}
SCALINGS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "linear": LINEAR,
    "llama3": LLAMA3,
    "yarn": YARN,
    "longrope": LONG_ROPE,
}
"""Kind of rotary scaling → our options → those of `rope_parameters`."""
FIXED = {"mscale": None, "truncate": True, "partial_rotary_factor": 1.0}
"""Options of `rope_parameters` that must have this value."""


def read_rotary(
    config: Any, position: str = POSITION, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Our options `position` for `rope_parameters`. `given`: in place of those of `config`. Raises
    ConfigError for a scaling without a counterpart."""
    given = config.rope_parameters if given is None else given
    kind = given.get("rope_type", "default")
    if kind not in SCALINGS:
        raise ConfigError(
            f"rotary scaling {kind!r} has no counterpart here; there are {', '.join(SCALINGS)}"
        )
    for name, default in FIXED.items():
        value = given.get(name)
        if value not in (default, None):
            raise ConfigError(f"rope_parameters: {name}={value!r} has no counterpart here")
    found = {f"{position}.kind": "rope", f"{position}.base": given["rope_theta"]}
    if kind != "default":
        found[f"{position}.scaling.kind"] = kind
    for option, name in SCALINGS[kind].items():
        if given.get(name) is not None:
            found[f"{position}.scaling.{option}"] = given[name]
    if kind == "longrope":
        length = given["original_max_position_embeddings"]
        factor = given.get("factor") or config.max_position_embeddings / length
        longer = math.sqrt(1 + math.log(max(factor, 1)) / math.log(length))
        found.setdefault(f"{position}.scaling.attention_factor", longer)
    return found


def write_rotary(options: Mapping[str, Any], position: str = POSITION) -> dict[str, Any]:
    """`rope_parameters` for our options `position`."""
    kind = options.get(f"{position}.scaling.kind", "default")
    found = {"rope_type": kind, "rope_theta": options[f"{position}.base"]}
    for option, name in SCALINGS[kind].items():
        if (value := options[f"{position}.scaling.{option}"]) is not None:
            found[name] = value
    return found


SLIDING, FULL = "sliding_attention", "full_attention"


def read_layer_types(config: Any, window: int | None) -> list[int]:
    """Numbers of the layers with full attention. `window`: of those with sliding attention. Raises
    ConfigError for another kind of attention, and without a window."""
    if others := set(config.layer_types) - {SLIDING, FULL}:
        raise ConfigError(
            f"layer_types has {others.pop()!r}, which has no counterpart here; there are {SLIDING}"
            f" and {FULL}"
        )
    if SLIDING in config.layer_types and not window:
        raise ConfigError(f"layer_types has {SLIDING!r}, but the configuration gives no window")
    return [layer for layer, kind in enumerate(config.layer_types) if kind == FULL]


def write_layer_types(options: Mapping[str, Any]) -> list[str]:
    """`layer_types` for our options."""
    full = (
        range(options["encoder.layers"])
        if options["encoder.window"] is None
        else options["encoder.global_layers"]
    )
    return [FULL if layer in full else SLIDING for layer in range(options["encoder.layers"])]


def read_windows(config: Any, window: int | None) -> dict[str, Any]:
    """Our options for `layer_types`. `window`: that of layers with sliding attention."""
    full = read_layer_types(config, window)
    if len(full) == len(config.layer_types):
        return {}
    return {"encoder.window": window, "encoder.global_layers": full}


def read_biases(config: Any) -> list[str]:
    """Our `biases` for theirs."""
    biases = ["qkv", "attention_output"] if config.attention_bias else []
    return [*biases, "feed_forward"] if getattr(config, "mlp_bias", False) else biases


def write_biases(options: Mapping[str, Any]) -> dict[str, Any]:
    """Their options for our `biases`, of attention and of the feed-forward."""
    biases = options["encoder.biases"]
    return {"attention_bias": "qkv" in biases, "mlp_bias": "feed_forward" in biases}


def causal_heads(name: str, answering_prefix: str = "transformer.") -> dict[str, Head]:
    """Heads of a family whose architectures begin with `name`. `answering_prefix`: of the base
    model in question answering."""
    return {
        f"{name}Model": Head(unused=("lm_head.",)),
        f"{name}ForCausalLM": Head.language_model("model.embed_tokens", ends_text=False),
        f"{name}ForSequenceClassification": LAST_TOKEN,
        f"{name}ForTokenClassification": Head.token_classification("score"),
        f"{name}ForQuestionAnswering": Head.question_answering(prefix=answering_prefix),
    }


LLAMA = Family(
    model_type="llama",
    prefix="model.",
    fields={
        "width": "hidden_size",
        "streams.text.vocabulary": "vocab_size",
        "streams.text.max_length": "max_position_embeddings",
        **prefixed(
            "encoder",
            layers="num_hidden_layers",
            heads="num_attention_heads",
            key_value_heads="num_key_value_heads",
            head_size="head_dim",
            feed_forward="intermediate_size",
            activation=activation("hidden_act"),
            norm_epsilon="rms_norm_eps",
            attention_dropout="attention_dropout",
        ),
    },
    rules={
        "embeddings.text.content.word": "embed_tokens",
        **block_rules(
            BLOCK,
            HF_BLOCK,
            qkv=qkv("self_attn.{}_proj"),
            attention_output="self_attn.o_proj",
            attention_norm="input_layernorm",
            inner=joined("mlp.gate_proj", "mlp.up_proj"),
            outer="mlp.down_proj",
            feed_forward_norm="post_attention_layernorm",
        ),
        f"{BLOCK}.attention.query_norm": f"{HF_BLOCK}.self_attn.q_norm",
        f"{BLOCK}.attention.key_norm": f"{HF_BLOCK}.self_attn.k_norm",
        "encoder.last_norm": "norm",
    },
    heads=causal_heads("Llama"),
    constants={
        "streams.text.embedding": ["word"],
        "streams.text.norm": False,
        "encoder.norm": "rms",
        "encoder.norm_position": "pre",
        "encoder.gated": True,
        "encoder.dropout": 0.0,
    },
    required={"pretraining_tp": 1},
    read_options=lambda config: {
        **read_rotary(config),
        "encoder.biases": read_biases(config),
    },
    write_options=lambda options: {
        "rope_parameters": write_rotary(options),
        **write_biases(options),
    },
    spans=CAUSAL,
    ignored=(r"rotary_emb\.inv_freq$",),
)
MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    fields={**LLAMA.fields, "encoder.window": "sliding_window"},
    heads=causal_heads("Mistral", ""),
    required={},
    read_options=lambda config: {**read_rotary(config), "encoder.biases": []},
    write_options=lambda options: {"rope_parameters": write_rotary(options)},
)


def _write_windows(options: Mapping[str, Any]) -> dict[str, Any]:
    window = options["encoder.window"]
    return {
        "rope_parameters": write_rotary(options),
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "layer_types": write_layer_types(options),
    }


QWEN2 = replace(
    LLAMA,
    model_type="qwen2",
    fields=without(LLAMA.fields, "encoder.head_size"),
    heads=causal_heads("Qwen2"),
    required={},
    read_options=lambda config: {
        **read_rotary(config),
        **read_windows(config, config.sliding_window),
        "encoder.biases": ["qkv"],
    },
    write_options=_write_windows,
)


def _write_attention_bias(options: Mapping[str, Any]) -> dict[str, Any]:
    return without(write_biases(options), "mlp_bias")


QWEN3 = replace(
    LLAMA,
    model_type="qwen3",
    heads=causal_heads("Qwen3"),
    constants={**LLAMA.constants, "encoder.qk_norm": True},
    required={},
    read_options=lambda config: {
        **LLAMA.read_options(config),
        **read_windows(config, config.sliding_window),
    },
    write_options=lambda options: {**_write_windows(options), **_write_attention_bias(options)},
)
EXPERT = f"{BLOCK}.feed_forward.experts.{{e}}"
SPARSE = "encoder.sparse.feed_forward"


def _experts(stored: str, gate: str, value: str, outer: str) -> Rules:
    """Rules for experts. In memory those of a layer are one tensor; files have them as modules with
    these names inside the module `stored`."""
    expert = f"{stored}.experts.{{e}}"
    return {
        f"{BLOCK}.feed_forward.route.gate": (f"{HF_BLOCK}.mlp.gate", f"{stored}.gate"),
        f"{EXPERT}.inner.weight": (
            stacked(f"{HF_BLOCK}.mlp.experts.gate_up_proj"),
            joined(f"{expert}.{gate}.weight", f"{expert}.{value}.weight"),
        ),
        f"{EXPERT}.outer.weight": (
            stacked(f"{HF_BLOCK}.mlp.experts.down_proj"),
            f"{expert}.{outer}.weight",
        ),
    }


MIXTRAL = replace(
    MISTRAL,
    model_type="mixtral",
    fields={
        **MISTRAL.fields,
        f"{SPARSE}.experts": "num_local_experts",
        f"{SPARSE}.active": "num_experts_per_tok",
    },
    rules={**LLAMA.rules, **_experts(f"{HF_BLOCK}.block_sparse_moe", "w1", "w3", "w2")},
    heads=causal_heads("Mixtral", ""),
    constants={**LLAMA.constants, f"{SPARSE}.route": "token"},
    required={"output_router_logits": False, "router_jitter_noise": 0.0},
)
QWEN3_MOE = replace(
    QWEN3,
    model_type="qwen3_moe",
    fields={
        **QWEN3.fields,
        "encoder.window": "sliding_window",
        "encoder.feed_forward": "moe_intermediate_size",
        f"{SPARSE}.experts": "num_experts",
        f"{SPARSE}.active": "num_experts_per_tok",
        f"{SPARSE}.renormalise": "norm_topk_prob",
    },
    rules={**LLAMA.rules, **_experts(f"{HF_BLOCK}.mlp", "gate_proj", "up_proj", "down_proj")},
    heads=causal_heads("Qwen3Moe"),
    constants={**QWEN3.constants, f"{SPARSE}.route": "token"},
    required={"output_router_logits": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
    read_options=LLAMA.read_options,
    write_options=lambda options: {
        **without(_write_windows(options), "layer_types"),
        **_write_attention_bias(options),
    },
)
for family in (LLAMA, MISTRAL, QWEN2, QWEN3, MIXTRAL, QWEN3_MOE):
    family.register()

"""LLaMA (arXiv 2302.13971) and models with the same layers: Mistral, Qwen 2 and 3, and Mixtral
(arXiv 2401.04088)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.families.gpt2 import CAUSAL, LAST_TOKEN
from skillweave.interop.huggingface.family import Family, Head, activation, prefixed, without
from skillweave.interop.rules import block_rules, joined, qkv, stacked

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
SCALINGS: Mapping[str, Mapping[str, str]] = {
    kind: prefixed(f"{POSITION}.scaling", **options)
    for kind, options in {"default": {}, "linear": LINEAR, "llama3": LLAMA3, "yarn": YARN}.items()
}
"""Kind of rotary scaling → our options → those of `rope_parameters`."""


def read_rotary(config: Any) -> dict[str, Any]:
    """Our options for `rope_parameters`. Raises ConfigError for a scaling without a counterpart."""
    given = config.rope_parameters
    kind = given.get("rope_type", "default")
    if kind not in SCALINGS:
        raise ConfigError(
            f"rotary scaling {kind!r} has no counterpart here; there are {', '.join(SCALINGS)}"
        )
    for name, default in (("mscale", None), ("truncate", True)):
        value = given.get(name)
        if value not in (default, None):
            raise ConfigError(f"rotary scaling: {name}={value!r} has no counterpart here")
    found = {f"{POSITION}.kind": "rope", f"{POSITION}.base": given["rope_theta"]}
    if kind != "default":
        found[f"{POSITION}.scaling.kind"] = kind
    for path, name in SCALINGS[kind].items():
        if given.get(name) is not None:
            found[path] = given[name]
    return found


def write_rotary(options: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_parameters` for our options."""
    kind = options.get(f"{POSITION}.scaling.kind", "default")
    found = {"rope_type": kind, "rope_theta": options[f"{POSITION}.base"]}
    for path, name in SCALINGS[kind].items():
        if options[path] is not None:
            found[name] = options[path]
    return {"rope_parameters": found}


def _read_options(config: Any) -> dict[str, Any]:
    biases = ["qkv", "attention_output"] if config.attention_bias else []
    if config.mlp_bias:
        biases.append("feed_forward")
    return {**read_rotary(config), "encoder.biases": biases}


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    biases = options["encoder.biases"]
    return {
        **write_rotary(options),
        "attention_bias": "qkv" in biases,
        "mlp_bias": "feed_forward" in biases,
    }


def _heads(name: str, answering_prefix: str = "transformer.") -> dict[str, Head]:
    """`answering_prefix`: of the base model in question answering."""
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
    heads=_heads("Llama"),
    constants={
        "streams.text.embedding": ["word"],
        "streams.text.norm": False,
        "encoder.norm": "rms",
        "encoder.norm_position": "pre",
        "encoder.gated": True,
        "encoder.dropout": 0.0,
    },
    required={"pretraining_tp": 1},
    read_options=_read_options,
    write_options=_write_options,
    spans=CAUSAL,
    ignored=(r"rotary_emb\.inv_freq$",),
)
MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    fields={**LLAMA.fields, "encoder.window": "sliding_window"},
    heads=_heads("Mistral", ""),
    required={},
    read_options=lambda config: {**read_rotary(config), "encoder.biases": []},
    write_options=write_rotary,
)
QWEN2 = replace(
    LLAMA,
    model_type="qwen2",
    fields=without(LLAMA.fields, "encoder.head_size"),
    heads=_heads("Qwen2"),
    required={"use_sliding_window": False},
    read_options=lambda config: {**read_rotary(config), "encoder.biases": ["qkv"]},
    write_options=write_rotary,
)


def _read_qwen3(config: Any) -> dict[str, Any]:
    biases = ["qkv", "attention_output"] if config.attention_bias else []
    return {**read_rotary(config), "encoder.biases": biases}


def _write_qwen3(options: Mapping[str, Any]) -> dict[str, Any]:
    return {**write_rotary(options), "attention_bias": "qkv" in options["encoder.biases"]}


QWEN3 = replace(
    LLAMA,
    model_type="qwen3",
    heads=_heads("Qwen3"),
    constants={**LLAMA.constants, "encoder.qk_norm": True},
    required={"use_sliding_window": False},
    read_options=_read_qwen3,
    write_options=_write_qwen3,
)
EXPERT = f"{BLOCK}.feed_forward.experts.{{e}}"
STORED = "layers.{i}.block_sparse_moe"
"""Where files have the experts. In memory all experts of a layer are one tensor."""
MIXTRAL = replace(
    MISTRAL,
    model_type="mixtral",
    fields={
        **MISTRAL.fields,
        "encoder.sparse.feed_forward.experts": "num_local_experts",
        "encoder.sparse.feed_forward.active": "num_experts_per_tok",
    },
    rules={
        **LLAMA.rules,
        f"{BLOCK}.feed_forward.route.gate": (f"{HF_BLOCK}.mlp.gate", f"{STORED}.gate"),
        f"{EXPERT}.inner.weight": (
            stacked(f"{HF_BLOCK}.mlp.experts.gate_up_proj"),
            joined(f"{STORED}.experts.{{e}}.w1.weight", f"{STORED}.experts.{{e}}.w3.weight"),
        ),
        f"{EXPERT}.outer.weight": (
            stacked(f"{HF_BLOCK}.mlp.experts.down_proj"),
            f"{STORED}.experts.{{e}}.w2.weight",
        ),
    },
    heads=_heads("Mixtral", ""),
    constants={**LLAMA.constants, "encoder.sparse.feed_forward.route": "token"},
    required={"output_router_logits": False, "router_jitter_noise": 0.0},
)
LLAMA.register()
MISTRAL.register()
QWEN2.register()
QWEN3.register()
MIXTRAL.register()

"""LLaMA (arXiv 2302.13971) and what is built as it: Mistral, Qwen 2 and 3, Mixtral (arXiv
2401.04088)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.engine import joined, rule, stacked
from skillweave.interop.huggingface.families.bert import per_token
from skillweave.interop.huggingface.families.gpt2 import CAUSAL, SCORE
from skillweave.interop.huggingface.family import Family, Field, Head, activation

OURS, THEIRS = "encoder.blocks.{i}", "model.layers.{i}"
LINEAR = {"encoder.position.scaling.factor": "factor"}
LLAMA3 = {
    **LINEAR,
    "encoder.position.scaling.low_frequency_factor": "low_freq_factor",
    "encoder.position.scaling.high_frequency_factor": "high_freq_factor",
    "encoder.position.scaling.original_length": "original_max_position_embeddings",
}
YARN = {
    **LINEAR,
    "encoder.position.scaling.fast_rotations": "beta_fast",
    "encoder.position.scaling.slow_rotations": "beta_slow",
    "encoder.position.scaling.attention_factor": "attention_factor",
    "encoder.position.scaling.original_length": "original_max_position_embeddings",
}
SCALINGS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "linear": LINEAR,
    "llama3": LLAMA3,
    "yarn": YARN,
}
"""Their kinds of rotary scaling → our options and theirs."""


def rotary(config: Any) -> dict[str, Any]:
    """Our options of their `rope_parameters`. Raises ConfigError for a scaling that there is
    not."""
    given = config.rope_parameters
    kind = given.get("rope_type", "default")
    if kind not in SCALINGS:
        raise ConfigError(
            f"rotary scaling {kind!r} has no counterpart here; there are {', '.join(SCALINGS)}"
        )
    if other := [
        name
        for name, usual in (("mscale", None), ("truncate", True))
        if given.get(name, usual) not in (usual, None)
    ]:
        raise ConfigError(f"rotary scaling: {other[0]}={given[other[0]]!r} has no counterpart here")
    found = {"encoder.position.kind": "rope", "encoder.position.base": given["rope_theta"]}
    if kind != "default":
        found["encoder.position.scaling.kind"] = kind
    return found | {
        ours: given[theirs]
        for ours, theirs in SCALINGS[kind].items()
        if given.get(theirs) is not None
    }


def rope_parameters(ours: Mapping[str, Any]) -> dict[str, Any]:
    """Their `rope_parameters` of our options."""
    kind = ours.get("encoder.position.scaling.kind", "default")
    given = {
        theirs: ours[path] for path, theirs in SCALINGS[kind].items() if ours[path] is not None
    }
    return {
        "rope_parameters": {"rope_type": kind, "rope_theta": ours["encoder.position.base"], **given}
    }


def _ours(config: Any) -> dict[str, Any]:
    flags = {
        "qkv": config.attention_bias,
        "attention_output": config.attention_bias,
        "feed_forward": config.mlp_bias,
    }
    return {**rotary(config), "encoder.biases": [place for place, on in flags.items() if on]}


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    biases = ours["encoder.biases"]
    return {
        **rope_parameters(ours),
        "attention_bias": "qkv" in biases,
        "mlp_bias": "feed_forward" in biases,
    }


def heads(name: str, answering: str = "transformer.") -> dict[str, Head]:
    """Language modelling, a class from the last token, labels of words and answers; `answering`:
    the latter's base."""
    return {
        f"{name}Model": Head(unused=("lm_head.",)),
        f"{name}ForCausalLM": Head(
            {"lm": {}},
            (rule("targets.lm.output", "lm_head"),),
            {"targets.lm.tied": Field("tie_word_embeddings")},
            {"lm_head.weight": "model.embed_tokens.weight"},
        ),
        f"{name}ForSequenceClassification": SCORE,
        **per_token(name, labels="score", base=answering),
    }


ATTENTION = (
    rule("embeddings.text.content.word", "model.embed_tokens"),
    rule(
        f"{OURS}.attention.qkv.experts.shared",
        joined(*(f"{THEIRS}.self_attn.{x}_proj" for x in "qkv")),
    ),
    rule(f"{OURS}.attention.output", f"{THEIRS}.self_attn.o_proj"),
    rule(f"{OURS}.attention.query_norm", f"{THEIRS}.self_attn.q_norm"),
    rule(f"{OURS}.attention.key_norm", f"{THEIRS}.self_attn.k_norm"),
    rule(f"{OURS}.attention_norm", f"{THEIRS}.input_layernorm"),
    rule(f"{OURS}.feed_forward_norm", f"{THEIRS}.post_attention_layernorm"),
    rule("encoder.last_norm", "model.norm"),
)
LLAMA = Family(
    "llama",
    {
        "width": "hidden_size",
        "streams.text.vocabulary": "vocab_size",
        "streams.text.max_length": "max_position_embeddings",
        "encoder.layers": "num_hidden_layers",
        "encoder.heads": "num_attention_heads",
        "encoder.key_value_heads": "num_key_value_heads",
        "encoder.head_size": "head_dim",
        "encoder.feed_forward": "intermediate_size",
        "encoder.activation": activation("hidden_act"),
        "encoder.norm_epsilon": "rms_norm_eps",
        "encoder.attention_dropout": "attention_dropout",
    },
    (
        *ATTENTION,
        rule(
            f"{OURS}.feed_forward.experts.shared.inner",
            joined(f"{THEIRS}.mlp.gate_proj", f"{THEIRS}.mlp.up_proj"),
        ),
        rule(f"{OURS}.feed_forward.experts.shared.outer", f"{THEIRS}.mlp.down_proj"),
    ),
    heads("Llama"),
    base="model.",
    constants={
        "streams.text.embedding": ["word"],
        "streams.text.norm": False,
        "encoder.norm": "rms",
        "encoder.norm_position": "pre",
        "encoder.gated": True,
        "encoder.dropout": 0.0,
    },
    required={"pretraining_tp": 1},
    ours=_ours,
    theirs=_theirs,
    spans=CAUSAL,
    ignored=(r"rotary_emb\.inv_freq$",),
)


def _unbiased(config: Any) -> dict[str, Any]:
    return {**rotary(config), "encoder.biases": []}


MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    fields={**LLAMA.fields, "encoder.window": "sliding_window"},
    heads=heads("Mistral", ""),
    required={},
    ours=_unbiased,
    theirs=rope_parameters,
)
QWEN2 = replace(
    LLAMA,
    model_type="qwen2",
    fields={path: one for path, one in LLAMA.fields.items() if path != "encoder.head_size"},
    heads=heads("Qwen2"),
    required={"use_sliding_window": False},
    ours=lambda config: {**rotary(config), "encoder.biases": ["qkv"]},
    theirs=rope_parameters,
)


def _qwen3(config: Any) -> dict[str, Any]:
    return {
        **rotary(config),
        "encoder.biases": ["qkv", "attention_output"] if config.attention_bias else [],
    }


QWEN3 = replace(
    LLAMA,
    model_type="qwen3",
    heads=heads("Qwen3"),
    constants={**LLAMA.constants, "encoder.qk_norm": True},
    required={"use_sliding_window": False},
    ours=_qwen3,
    theirs=lambda ours: {
        **rope_parameters(ours),
        "attention_bias": "qkv" in ours["encoder.biases"],
    },
)
EXPERT = f"{OURS}.feed_forward.experts.{{e}}"
STORED = "model.layers.{i}.block_sparse_moe"
"""Where files have experts; in memory each layer has one stack of them."""
MIXTRAL = replace(
    MISTRAL,
    model_type="mixtral",
    fields={
        **MISTRAL.fields,
        "encoder.sparse.feed_forward.experts": "num_local_experts",
        "encoder.sparse.feed_forward.active": "num_experts_per_tok",
    },
    rules=(
        *ATTENTION,
        rule(f"{OURS}.feed_forward.route.gate", f"{THEIRS}.mlp.gate", f"{STORED}.gate"),
        rule(
            f"{EXPERT}.inner.weight",
            stacked(f"{THEIRS}.mlp.experts.gate_up_proj"),
            joined(f"{STORED}.experts.{{e}}.w1.weight", f"{STORED}.experts.{{e}}.w3.weight"),
        ),
        rule(
            f"{EXPERT}.outer.weight",
            stacked(f"{THEIRS}.mlp.experts.down_proj"),
            f"{STORED}.experts.{{e}}.w2.weight",
        ),
    ),
    heads=heads("Mixtral", ""),
    constants={**LLAMA.constants, "encoder.sparse.feed_forward.route": "token"},
    required={"output_router_logits": False, "router_jitter_noise": 0.0},
)
FAMILIES = (LLAMA, MISTRAL, QWEN2, QWEN3, MIXTRAL)

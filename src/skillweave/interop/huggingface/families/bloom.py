"""BLOOM (arXiv 2211.05100): causal and pre-norm, with ALiBi and a norm of the word embedding."""

from __future__ import annotations

from skillweave.interop.huggingface.families.gpt2 import CAUSAL, LAST_TOKEN
from skillweave.interop.huggingface.family import Family, Head, prefixed
from skillweave.interop.rules import block_rules, interleaved

BLOOM = Family(
    model_type="bloom",
    prefix="transformer.",
    fields={
        "width": "hidden_size",
        "streams.text.vocabulary": "vocab_size",
        **prefixed(
            "encoder",
            layers="n_layer",
            heads="n_head",
            norm_epsilon="layer_norm_epsilon",
            dropout="hidden_dropout",
            attention_dropout="attention_dropout",
        ),
    },
    rules={
        "embeddings.text.content.word": "word_embeddings",
        "embeddings.text.norm": "word_embeddings_layernorm",
        **block_rules(
            "encoder.blocks.{i}",
            "h.{i}",
            qkv=interleaved("self_attention.query_key_value"),
            attention_output="self_attention.dense",
            attention_norm="input_layernorm",
            inner="mlp.dense_h_to_4h",
            outer="mlp.dense_4h_to_h",
            feed_forward_norm="post_attention_layernorm",
        ),
        "encoder.last_norm": "ln_f",
    },
    heads={
        "BloomModel": Head(unused=("lm_head.",)),
        "BloomForCausalLM": Head.language_model("transformer.word_embeddings", ends_text=False),
        "BloomForSequenceClassification": LAST_TOKEN,
        **Head.token_heads("Bloom"),
    },
    constants={
        "streams.text.embedding": ["word"],
        "encoder.norm_position": "pre",
        "encoder.activation": "gelu_tanh",
        "encoder.position.kind": "alibi",
    },
    required={
        "apply_residual_connection_post_layernorm": False,
        "slow_but_exact": False,  # it leaves biases out
    },
    read_options=lambda config: {"encoder.feed_forward": 4 * config.hidden_size},
    spans=CAUSAL,
)
BLOOM.register()

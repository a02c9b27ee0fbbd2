"""BLOOM (arXiv 2211.05100): causal, pre-norm, with ALiBi and a norm of its words; query, key and
value head by head."""

from __future__ import annotations

from skillweave.interop.huggingface.engine import interleaved, rule
from skillweave.interop.huggingface.families.bert import per_token
from skillweave.interop.huggingface.families.gpt2 import CAUSAL, SCORE
from skillweave.interop.huggingface.family import Family, Field, Head

OURS, THEIRS = "encoder.blocks.{i}", "transformer.h.{i}"
BLOOM = Family(
    "bloom",
    {
        "width": "hidden_size",
        "streams.text.vocabulary": "vocab_size",
        "encoder.layers": "n_layer",
        "encoder.heads": "n_head",
        "encoder.norm_epsilon": "layer_norm_epsilon",
        "encoder.dropout": "hidden_dropout",
        "encoder.attention_dropout": "attention_dropout",
    },
    (
        rule("embeddings.text.content.word", "transformer.word_embeddings"),
        rule("embeddings.text.norm", "transformer.word_embeddings_layernorm"),
        *(
            rule(
                f"{OURS}.attention.qkv.experts.shared{end}",
                interleaved(f"{THEIRS}.self_attention.query_key_value{end}"),
            )
            for end in (".weight", ".bias")
        ),
        rule(f"{OURS}.attention.output", f"{THEIRS}.self_attention.dense"),
        rule(f"{OURS}.attention_norm", f"{THEIRS}.input_layernorm"),
        rule(f"{OURS}.feed_forward.experts.shared.inner", f"{THEIRS}.mlp.dense_h_to_4h"),
        rule(f"{OURS}.feed_forward.experts.shared.outer", f"{THEIRS}.mlp.dense_4h_to_h"),
        rule(f"{OURS}.feed_forward_norm", f"{THEIRS}.post_attention_layernorm"),
        rule("encoder.last_norm", "transformer.ln_f"),
    ),
    {
        "BloomModel": Head(unused=("lm_head.",)),
        "BloomForCausalLM": Head(
            {"lm": {}},
            (rule("targets.lm.output", "lm_head"),),
            {"targets.lm.tied": Field("tie_word_embeddings")},
            {"lm_head.weight": "transformer.word_embeddings.weight"},
        ),
        "BloomForSequenceClassification": SCORE,
        **per_token("Bloom"),
    },
    base="transformer.",
    constants={
        "streams.text.embedding": ["word"],
        "encoder.norm_position": "pre",
        "encoder.activation": "gelu_tanh",
        "encoder.position.kind": "alibi",
    },
    required={"apply_residual_connection_post_layernorm": False},
    ours=lambda config: {"encoder.feed_forward": 4 * config.hidden_size},
    spans=CAUSAL,
)

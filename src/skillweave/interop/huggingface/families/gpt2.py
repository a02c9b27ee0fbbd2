"""GPT-2: causal and pre-norm; its linear layers are stored as [inputs, outputs]."""

from __future__ import annotations

from skillweave.interop.huggingface.family import Family, Head, activation, prefixed
from skillweave.interop.rules import block_rules, transposed

CAUSAL = ({"modality": "text", "attention": "causal"},)
LAST_TOKEN = Head.classification("score", options={"pooling": "last", "bias": False})
"""A class from the last token."""
GPT2 = Family(
    model_type="gpt2",
    prefix="transformer.",
    fields={
        "width": "n_embd",
        "streams.text.vocabulary": "vocab_size",
        "streams.text.max_length": "n_positions",
        **prefixed(
            "encoder",
            layers="n_layer",
            heads="n_head",
            activation=activation("activation_function"),
            norm_epsilon="layer_norm_epsilon",
            dropout="resid_pdrop",
            attention_dropout="attn_pdrop",
            scale_attention="scale_attn_weights",
        ),
    },
    rules={
        "embeddings.text.content.word": "wte",
        "embeddings.text.positions.position.table": "wpe",
        **block_rules(
            "encoder.blocks.{i}",
            "h.{i}",
            qkv=transposed("attn.c_attn"),
            attention_output=transposed("attn.c_proj"),
            attention_norm="ln_1",
            inner=transposed("mlp.c_fc"),
            outer=transposed("mlp.c_proj"),
            feed_forward_norm="ln_2",
        ),
        "encoder.last_norm": "ln_f",
    },
    heads={
        "GPT2Model": Head(unused=("lm_head.",)),
        "GPT2LMHeadModel": Head.language_model("transformer.wte", ends_text=False),
        "GPT2ForSequenceClassification": LAST_TOKEN,
        **Head.token_heads("GPT2"),
    },
    constants={
        "streams.text.embedding": ["word", "position"],
        "streams.text.norm": False,
        "encoder.norm_position": "pre",
    },
    required={
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    },
    read_options=lambda config: {"encoder.feed_forward": config.n_inner or 4 * config.n_embd},
    write_options=lambda options: {"n_inner": options["encoder.feed_forward"]},
    spans=CAUSAL,
    ignored=(r"\.attn\.(masked_)?bias$",),
)
GPT2.register()

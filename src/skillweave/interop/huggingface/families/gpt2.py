"""GPT-2: causal, pre-norm, its linear layers stored input first."""

from __future__ import annotations

from skillweave.interop.huggingface.engine import rule, transposed
from skillweave.interop.huggingface.families.bert import per_token
from skillweave.interop.huggingface.family import CLASSES, Family, Field, Head, activation

OURS, THEIRS = "encoder.blocks.{i}", "transformer.h.{i}"
LAST = {"classification": {"hidden": False, "pooling": "last", "bias": False}}
SCORE = Head(
    LAST,
    (rule("targets.classification.classifier", "score"),),
    {"targets.classification.classes": CLASSES},
)
CAUSAL = ({"modality": "text", "attention": "causal"},)
GPT2 = Family(
    "gpt2",
    {
        "width": "n_embd",
        "streams.text.vocabulary": "vocab_size",
        "streams.text.max_length": "n_positions",
        "encoder.layers": "n_layer",
        "encoder.heads": "n_head",
        "encoder.activation": activation("activation_function"),
        "encoder.norm_epsilon": "layer_norm_epsilon",
        "encoder.dropout": "resid_pdrop",
        "encoder.attention_dropout": "attn_pdrop",
        "encoder.scale_attention": "scale_attn_weights",
    },
    (
        rule("embeddings.text.content.word", "transformer.wte"),
        rule("embeddings.text.positions.position.table", "transformer.wpe"),
        rule(
            f"{OURS}.attention.qkv.experts.shared.weight",
            transposed(f"{THEIRS}.attn.c_attn.weight"),
        ),
        rule(f"{OURS}.attention.qkv.experts.shared.bias", f"{THEIRS}.attn.c_attn.bias"),
        rule(f"{OURS}.attention.output.weight", transposed(f"{THEIRS}.attn.c_proj.weight")),
        rule(f"{OURS}.attention.output.bias", f"{THEIRS}.attn.c_proj.bias"),
        rule(f"{OURS}.attention_norm", f"{THEIRS}.ln_1"),
        rule(
            f"{OURS}.feed_forward.experts.shared.inner.weight",
            transposed(f"{THEIRS}.mlp.c_fc.weight"),
        ),
        rule(f"{OURS}.feed_forward.experts.shared.inner.bias", f"{THEIRS}.mlp.c_fc.bias"),
        rule(
            f"{OURS}.feed_forward.experts.shared.outer.weight",
            transposed(f"{THEIRS}.mlp.c_proj.weight"),
        ),
        rule(f"{OURS}.feed_forward.experts.shared.outer.bias", f"{THEIRS}.mlp.c_proj.bias"),
        rule(f"{OURS}.feed_forward_norm", f"{THEIRS}.ln_2"),
        rule("encoder.last_norm", "transformer.ln_f"),
    ),
    {
        "GPT2Model": Head(unused=("lm_head.",)),
        "GPT2LMHeadModel": Head(
            {"lm": {}},
            (rule("targets.lm.output", "lm_head"),),
            {"targets.lm.tied": Field("tie_word_embeddings")},
            {"lm_head.weight": "transformer.wte.weight"},
        ),
        "GPT2ForSequenceClassification": SCORE,
        **per_token("GPT2"),
    },
    base="transformer.",
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
    ours=lambda config: {"encoder.feed_forward": config.n_inner or 4 * config.n_embd},
    theirs=lambda ours: {"n_inner": ours["encoder.feed_forward"]},
    spans=CAUSAL,
    ignored=(r"\.attn\.(masked_)?bias$",),
)

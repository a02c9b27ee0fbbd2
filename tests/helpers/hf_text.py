"""Reference models that read text: architecture, configuration class and options."""

from __future__ import annotations

from typing import Any

from hf_generation import BART
from hf_vision import BERT, CLASSES, PAD

LLAMA: dict[str, Any] = {
    **BERT,
    "hidden_size": 36,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
WIDE = {**LLAMA, "head_dim": 4}
"""Heads that are narrower than the model's width divided by their number."""
EXPERTS = {
    **WIDE,
    "moe_intermediate_size": 23,
    "num_experts": 5,
    "num_experts_per_tok": 3,
    "experts_implementation": "eager",
}
SLIDING, FULL = "sliding_attention", "full_attention"
WINDOWS = {"sliding_window": 3, "layer_types": [SLIDING, FULL, SLIDING]}
ROTARY = {"rope_type": "default", "rope_theta": 50.0}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 50.0,
    "short_factor": [1.0, 1.5, 2.0],
    "long_factor": [2.0, 3.0, 5.0],
}
TWO_ROTARY = {
    SLIDING: ROTARY,
    FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
}
GEMMA = {
    **WIDE,
    **WINDOWS,
    "query_pre_attn_scalar": 7,
    "attn_implementation": "eager",  # The only implementation that caps scores.
}
GEMMA2 = {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
GEMMA3 = {**GEMMA, "rope_parameters": TWO_ROTARY}
ROBERTA = {**BERT, "type_vocab_size": 1}
MPNET = {
    **BERT,
    "max_position_embeddings": 15,
    "attn_implementation": "eager",  # The only implementation that it has.
}
MODERNBERT = {
    **BERT,
    "hidden_size": 30,
    "num_hidden_layers": 4,
    "cls_token_id": 0,
    "sep_token_id": 2,
    "local_attention": 4,
    "layer_types": [FULL, SLIDING, SLIDING, FULL],
    "rope_parameters": TWO_ROTARY,
}
BIASED = {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True}
DEBERTA = {
    **BERT,
    "relative_attention": True,
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "attn_implementation": "eager",  # The only implementation that it has.
}
MARIAN = {**BART, "pad_token_id": PAD, "decoder_start_token_id": PAD, "scale_embedding": True}


def _heads(name: str, options: dict[str, Any], *kinds: str) -> list[tuple[Any, ...]]:
    return [
        (f"{name}{kind}", f"{name}Config", {**options, **(CLASSES if "Class" in kind else {})})
        for kind in kinds
    ]


ENCODER = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
DECODER = ("Model", "ForCausalLM", *ENCODER[2:])
TEXT: list[tuple[Any, ...]] = [
    *_heads("Camembert", ROBERTA, *ENCODER),
    *_heads("Data2VecText", ROBERTA, *ENCODER),
    *_heads("MPNet", MPNET, *ENCODER),
    ("MPNetModel", "MPNetConfig", MPNET, {"add_pooling_layer": False}),
    *_heads("Qwen3Moe", {**EXPERTS, "norm_topk_prob": True}, *DECODER),
    (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {
            **EXPERTS,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 3,
            "tie_word_embeddings": True,
        },
    ),
    (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**LLAMA, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2},
    ),
    ("Qwen3ForCausalLM", "Qwen3Config", {**WIDE, **WINDOWS, "use_sliding_window": True}),
    *_heads("SmolLM3", {**LLAMA, "no_rope_layer_interval": 2}, *DECODER),
    (
        "SmolLM3ForCausalLM",
        "SmolLM3Config",
        {
            **LLAMA,
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 3,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    (
        "SmolLM3ForCausalLM",
        "SmolLM3Config",
        {
            **LLAMA,
            "no_rope_layers": [1, 1, 1],
            "rope_parameters": {**LONG_ROPE, "original_max_position_embeddings": 5},
        },
    ),
    ("SmolLM3ForCausalLM", "SmolLM3Config", {**LLAMA, "no_rope_layers": [0, 0, 0]}),
    *_heads("Phi3", LLAMA, *DECODER[:-1]),
    (
        "Phi3ForCausalLM",
        "Phi3Config",
        {
            **LLAMA,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "sliding_window": 3,
            "tie_word_embeddings": True,
            "rope_parameters": {**ROTARY, "partial_rotary_factor": 0.55},
        },
    ),
    *(
        (
            "Phi3ForCausalLM",
            "Phi3Config",
            {**LLAMA, "original_max_position_embeddings": length, "rope_parameters": LONG_ROPE},
        )
        for length in (8, 9, 16)  # A batch has 9 positions.
    ),
    *_heads("Gemma2", GEMMA2, *DECODER[:-1]),
    (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {
            **GEMMA,
            "attention_bias": True,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "tie_word_embeddings": False,
            "layer_types": [FULL] * 3,
        },
    ),
    ("Gemma3TextModel", "Gemma3TextConfig", GEMMA3),
    ("Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA3),
    (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {
            **GEMMA3,
            "hidden_activation": "silu",
            "final_logit_softcapping": 0.9,
            "layer_types": [SLIDING] * 3,
        },
    ),
    (
        "Gemma3TextModel",
        "Gemma3TextConfig",
        {**GEMMA3, "use_bidirectional_attention": True, "sliding_window": 4},
    ),
    (
        "Gemma3TextModel",
        "Gemma3TextConfig",
        {**GEMMA3, "use_bidirectional_attention": True, "layer_types": [FULL] * 3},
    ),
    ("Gemma3TextForSequenceClassification", "Gemma3TextConfig", {**GEMMA3, **CLASSES}),
    *_heads("ModernBert", MODERNBERT, *ENCODER),
    *_heads(
        "ModernBert",
        {
            **MODERNBERT,
            **BIASED,
            "decoder_bias": False,
            "classifier_pooling": "mean",
            "classifier_activation": "relu",
            "hidden_activation": "silu",
        },
        *ENCODER[1:4],
    ),
    *_heads("DebertaV2", DEBERTA, *ENCODER),
    (
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        {
            **DEBERTA,
            "pos_att_type": ["c2p"],
            "position_buckets": -1,
            "max_relative_positions": 5,
            "norm_rel_ebd": "none",
            "position_biased_input": True,
            "type_vocab_size": 2,
        },
    ),
    (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        {**DEBERTA, **CLASSES, "pos_att_type": "p2c", "pooler_hidden_act": "tanh"},
    ),
    *_heads("MBart", BART, "Model", "ForConditionalGeneration", "ForQuestionAnswering"),
    ("MBartForSequenceClassification", "MBartConfig", {**BART, **CLASSES}),
    (
        "MBartForConditionalGeneration",
        "MBartConfig",
        {**BART, "scale_embedding": True, "activation_function": "relu"},
    ),
    *_heads("Marian", MARIAN, "Model", "MTModel"),
    ("MarianMTModel", "MarianConfig", {**MARIAN, "scale_embedding": False, "d_model": 30}),
]

"""Options of Hugging Face configurations that change what a model computes and have no counterpart
here are refused by name; weights that are computed there must have the computed values."""

from typing import Any

import pytest
import torch
import transformers
from hf_references import Reference
from hf_text import (
    DEBERTA,
    EXPERTS,
    FULL,
    GEMMA2,
    GEMMA3,
    LLAMA,
    MARIAN,
    MODERNBERT,
    MPNET,
    ROTARY,
    SLIDING,
    WIDE,
)

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.weights.files import WeightsError

REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("Qwen3MoeModel", "Qwen3Moe", {**EXPERTS, "decoder_sparse_step": 2}, "decoder_sparse_step=2"),
    ("Qwen3MoeModel", "Qwen3Moe", {**EXPERTS, "mlp_only_layers": [0]}, r"mlp_only_layers=\[0\]"),
    ("Qwen3Model", "Qwen3", {**WIDE, "layer_types": ["linear_attention"] * 3}, "linear_attention"),
    ("Qwen3Model", "Qwen3", {**WIDE, "layer_types": [SLIDING] * 3}, "gives no window"),
    # Transformers applies the window or not, depending on the implementation of attention.
    (
        "SmolLM3Model",
        "SmolLM3",
        {**LLAMA, "sliding_window": 3, "layer_types": [SLIDING] * 3},
        "gives no window",
    ),
    (
        "SmolLM3Model",
        "SmolLM3",
        {
            **LLAMA,
            "use_sliding_window": True,
            "sliding_window": 3,
            "layer_types": [SLIDING, SLIDING, FULL],
            "no_rope_layers": [1, 0, 1],
        },
        "no_rope_layers differs",
    ),
    (
        "SmolLM3Model",
        "SmolLM3",
        {**LLAMA, "rope_parameters": {**ROTARY, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor=0.5",
    ),
    (
        "Gemma2Model",
        "Gemma2",
        {**GEMMA2, "use_bidirectional_attention": True},
        "use_bidirectional_attention=True",
    ),
    *(
        (f"{name}Model", name, {**LLAMA, "is_causal": False}, "is_causal=False")
        for name in ("Llama", "GPT2", "Bloom", "Qwen3")
    ),
    (
        "Gemma3TextModel",
        "Gemma3Text",
        {**GEMMA3, "attn_logit_softcapping": 5.0},
        "attn_logit_softcapping=5.0",
    ),
    ("MPNetModel", "MPNet", {**MPNET, "relative_attention_num_buckets": 8}, "num_buckets=8"),
    ("MPNetModel", "MPNet", {**MPNET, "pad_token_id": 0}, "pad_token_id=0"),
    (
        "ModernBertForMaskedLM",
        "ModernBert",
        {**MODERNBERT, "tie_word_embeddings": False},
        "tie_word_embeddings=False",
    ),
    ("DebertaV2Model", "DebertaV2", {**DEBERTA, "conv_kernel_size": 3}, "conv_kernel_size=3"),
    ("DebertaV2Model", "DebertaV2", {**DEBERTA, "share_att_key": False}, "share_att_key=False"),
    ("DebertaV2Model", "DebertaV2", {**DEBERTA, "embedding_size": 7}, "embedding_size=7"),
    (
        "DebertaV2Model",
        "DebertaV2",
        {**DEBERTA, "relative_attention": False},
        "relative_attention=False",
    ),
    (
        "MarianMTModel",
        "Marian",
        {**MARIAN, "share_encoder_decoder_embeddings": False},
        "share_encoder_decoder_embeddings=False",
    ),
]


@pytest.mark.parametrize(
    ("architecture", "name", "options", "message"),
    REFUSED,
    ids=[f"{row[0]}-{row[3].split('=')[0]}" for row in REFUSED],
)
def test_an_option_without_a_counterpart_is_named(
    architecture: str, name: str, options: dict[str, Any], message: str
) -> None:
    config = getattr(transformers, f"{name}Config")(**options, architectures=[architecture])
    with pytest.raises(ConfigError, match=message):
        sw.from_hf({}, config)


def test_positions_of_marian_are_computed() -> None:
    """Files lack them, and other values than the sines and cosines cannot be converted."""
    theirs = Reference("MarianMTModel", "MarianConfig", MARIAN).build(torch.float32)
    theirs.config.architectures = ["MarianMTModel"]
    state = theirs.state_dict()
    name = "model.encoder.embed_positions.weight"
    without = {key: x for key, x in state.items() if key != name}
    expected = sw.from_hf(theirs).state_dict()
    found = sw.from_hf(without, theirs.config).state_dict()
    assert all(torch.equal(found[key], x) for key, x in expected.items())
    state[name] = state[name] + 0.1
    with pytest.raises(WeightsError, match=f"{name} is computed in this family"):
        sw.from_hf(state, theirs.config)

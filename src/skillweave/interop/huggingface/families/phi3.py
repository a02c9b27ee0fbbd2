"""Phi-3 (arXiv 2404.14219): LLaMA whose projections are stored as one tensor, and which may rotate
only a part of each head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.families.llama import (
    BLOCK,
    HF_BLOCK,
    MISTRAL,
    POSITION,
    causal_heads,
    read_rotary,
    write_rotary,
)
from skillweave.interop.huggingface.family import without

SHARE = "partial_rotary_factor"


def _read_options(config: Any) -> dict[str, Any]:
    given = config.rope_parameters
    return {
        **read_rotary(config, given=without(given, SHARE)),
        f"{POSITION}.share": given.get(SHARE, 1.0),
        "encoder.biases": [],
    }


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    given = {**write_rotary(options), SHARE: options[f"{POSITION}.share"]}
    # This option has priority over that of `rope_parameters`.
    length = given.get("original_max_position_embeddings")
    original = {} if length is None else {"original_max_position_embeddings": length}
    return {"rope_parameters": given, **original}


PHI3 = replace(
    MISTRAL,
    model_type="phi3",
    fields={**MISTRAL.fields, "encoder.dropout": "resid_pdrop"},
    rules={
        **MISTRAL.rules,
        f"{BLOCK}.attention.qkv.experts.shared": f"{HF_BLOCK}.self_attn.qkv_proj",
        f"{BLOCK}.feed_forward.experts.shared.inner": f"{HF_BLOCK}.mlp.gate_up_proj",
    },
    heads=without(causal_heads("Phi3"), "Phi3ForQuestionAnswering"),
    read_options=_read_options,
    write_options=_write_options,
)
PHI3.register()

"""WavLM (arXiv 2110.13900): wav2vec 2.0 with gated relative position biases."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.families.wav2vec2 import family
from skillweave.interop.rules import reshaped

BASE = family("wavlm", "WavLM", "wavlm.")
LAYER, GATE = "encoder.layers.{i}.attention", "encoder.blocks.{i}.attention.gate"
WAVLM = replace(
    BASE,
    fields={
        **BASE.fields,
        "encoder.position.buckets": "num_buckets",
        "encoder.position.max_distance": "max_bucket_distance",
    },
    rules={
        **BASE.rules,
        "encoder.position.table": "encoder.layers.0.attention.rel_attn_embed",
        f"{GATE}.gates": f"{LAYER}.gru_rel_pos_linear",
        f"{GATE}.scale": reshaped(f"{LAYER}.gru_rel_pos_const"),
    },
    constants={
        **BASE.constants,
        "encoder.position.kind": "t5_bias",
        "encoder.position.gated": True,
    },
)
WAVLM.register()

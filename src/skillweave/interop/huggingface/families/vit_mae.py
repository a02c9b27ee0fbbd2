"""MAE (arXiv 2111.06377): ViT that sees a part of the patches, and a decoder that makes the pixels
of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.interop.huggingface.engine import reshaped, rule
from skillweave.interop.huggingface.families import vit
from skillweave.interop.huggingface.family import Family, Field, Head

TARGET = "targets.masked_autoencoder"
DECODER = "targets.masked_autoencoder.decoder"
LAYER = "decoder.decoder_layers.{i}"
SIZES: Mapping[str, str | Field] = {
    f"{TARGET}.width": "decoder_hidden_size",
    f"{DECODER}.layers": "decoder_num_hidden_layers",
    f"{DECODER}.heads": "decoder_num_attention_heads",
    f"{DECODER}.feed_forward": "decoder_intermediate_size",
    f"{TARGET}.normalised": "norm_pix_loss",
}
SHARED = ("activation", "norm_epsilon", "dropout", "attention_dropout")
"""Options that the decoder has from the encoder."""


def _ours(config: Any) -> dict[str, Any]:
    both = vit.biases(config)
    return both | {f"{DECODER}.biases": both["encoder.biases"], f"{DECODER}.norm_position": "pre"}


VIT_MAE = Family(
    "vit_mae",
    vit.SIZES,
    (*vit.embedding("vit."), *vit.layers("vit.")),
    {
        "ViTMAEModel": Head(unused=("decoder.",)),
        "ViTMAEForPreTraining": Head(
            {"masked_autoencoder": {}},
            (
                rule(f"{TARGET}.projection", "decoder.decoder_embed"),
                rule(f"{TARGET}.mask", reshaped("decoder.mask_token")),
                rule(f"{TARGET}.position.table.weight", reshaped("decoder.decoder_pos_embed")),
                *vit.blocks(
                    f"{DECODER}.blocks.{{i}}", LAYER, LAYER, "decoder.decoder_encoder.layer.{i}"
                ),
                rule(f"{DECODER}.last_norm", "decoder.decoder_norm"),
                rule(f"{TARGET}.output", "decoder.decoder_pred"),
            ),
            {
                **SIZES,
                **{f"{DECODER}.{option}": vit.SIZES[f"encoder.{option}"] for option in SHARED},
            },
        ),
    },
    base="vit.",
    constants={
        "streams.image.embedding": ["visible_patch", "position"],
        "encoder.norm_position": "pre",
    },
    required={"num_channels": 3},
    ours=_ours,
    theirs=vit.qkv_bias,
    spans=({"modality": "image"},),
)

"""MAE (arXiv 2111.06377): ViT that sees a part of the patches, and a decoder that predicts the
pixels of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.families import vit
from skillweave.interop.huggingface.family import Fields, Head, prefixed
from skillweave.interop.rules import reshaped

TARGET = "targets.masked_autoencoder"
DECODER = f"{TARGET}.decoder"
DECODER_FIELDS: Fields = {
    f"{TARGET}.width": "decoder_hidden_size",
    f"{TARGET}.normalised": "norm_pix_loss",
    **prefixed(
        DECODER,
        layers="decoder_num_hidden_layers",
        heads="decoder_num_attention_heads",
        feed_forward="decoder_intermediate_size",
        **{
            option: vit.FIELDS[f"encoder.{option}"]
            for option in ("activation", "norm_epsilon", "dropout", "attention_dropout")
        },
    ),
}


def _read_options(config: Any) -> dict[str, Any]:
    biases = vit.read_biases(config)
    return {
        **biases,
        f"{DECODER}.biases": biases["encoder.biases"],
        f"{DECODER}.norm_position": "pre",
    }


VIT_MAE = replace(
    vit.VIT,
    model_type="vit_mae",
    heads={
        "ViTMAEModel": Head(unused=("decoder.",)),
        "ViTMAEForPreTraining": Head(
            targets={"masked_autoencoder": {}},
            rules={
                f"{TARGET}.projection": "decoder.decoder_embed",
                f"{TARGET}.mask": reshaped("decoder.mask_token"),
                f"{TARGET}.position.table.weight": reshaped("decoder.decoder_pos_embed"),
                **vit.blocks(
                    f"{DECODER}.blocks.{{i}}",
                    "decoder.decoder_layers.{i}",
                    "decoder.decoder_layers.{i}",
                    "decoder.decoder_encoder.layer.{i}",
                ),
                f"{DECODER}.last_norm": "decoder.decoder_norm",
                f"{TARGET}.output": "decoder.decoder_pred",
            },
            fields=DECODER_FIELDS,
        ),
    },
    constants={
        **vit.VIT.constants,
        "streams.image.embedding": ["visible_patch", "position"],
    },
    read_options=_read_options,
    write_options=vit.write_biases,
)
VIT_MAE.register()

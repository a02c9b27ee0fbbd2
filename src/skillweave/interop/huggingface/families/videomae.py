"""VideoMAE (arXiv 2203.12602): ViT on the tubelets of a clip, without [CLS], with computed
positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.interop.huggingface.families.bert import ENCODER
from skillweave.interop.huggingface.families.vit import LAST_NORM, LAYERS, OTHER_BIASES, blocks
from skillweave.interop.huggingface.families.vit_mae import DECODER, DECODER_FIELDS, TARGET
from skillweave.interop.huggingface.family import Family, Head
from skillweave.interop.huggingface.preprocessors import VIDEO_FILE
from skillweave.interop.rules import reshaped

PATCHES = "embeddings.patch_embeddings.projection"
DECODER_PARTS = ("decoder.", "encoder_to_decoder.", "mask_token")


def _read_options(config: Any) -> dict[str, Any]:
    biases = ["query_value", *OTHER_BIASES] if config.qv_bias else OTHER_BIASES
    mean = config.use_mean_pooling
    return {
        "streams.video.tubelet": [config.tubelet_size, config.patch_size, config.patch_size],
        "encoder.biases": biases,
        f"{DECODER}.biases": biases,
        f"{DECODER}.norm_position": "pre",
        f"{DECODER}.last_norm": False,
        "targets.classification.pooling": "mean" if mean else "first",
        "targets.classification.norm_epsilon": 1e-5 if mean else None,
    }


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    frames, side, _ = options["streams.video.tubelet"]
    return {
        "tubelet_size": frames,
        "patch_size": side,
        "qv_bias": "query_value" in options["encoder.biases"],
    }


VIDEOMAE = Family(
    model_type="videomae",
    prefix="videomae.",
    fields={
        **ENCODER,
        "streams.video.size": "image_size",
        "streams.video.frames": "num_frames",
        "encoder.last_norm": LAST_NORM,
    },
    rules={
        "embeddings.video.content.tubelet.projection": PATCHES,
        "embeddings.video.content.visible_tubelet.projection": PATCHES,
        **LAYERS,
    },
    heads={
        "VideoMAEModel": Head(unused=("classifier.", "fc_norm.", *DECODER_PARTS)),
        "VideoMAEForVideoClassification": Head.classification(norm="fc_norm", unused=DECODER_PARTS),
        "VideoMAEForPreTraining": Head(
            targets={
                "masked_autoencoder": {"stream": "video", "bias": False, "norm_epsilon": 1e-5}
            },
            rules={
                f"{TARGET}.projection": "encoder_to_decoder",
                f"{TARGET}.mask": reshaped("mask_token"),
                **blocks(
                    f"{DECODER}.blocks.{{i}}",
                    "decoder.decoder_layers.{i}",
                    "decoder.decoder_layers.{i}",
                ),
                f"{TARGET}.norm": "decoder.norm",
                f"{TARGET}.output": "decoder.head",
            },
            fields=DECODER_FIELDS,
            constants={"streams.video.embedding": ["visible_tubelet", "interleaved_sinusoidal"]},
        ),
    },
    constants={
        "streams.video.embedding": ["tubelet", "interleaved_sinusoidal"],
        "streams.video.cls_token": False,
        "encoder.norm_position": "pre",
    },
    required={"num_channels": 3},
    read_options=_read_options,
    write_options=_write_options,
    spans=({"modality": "video"},),
    processor_files=(VIDEO_FILE,),
)
VIDEOMAE.register()

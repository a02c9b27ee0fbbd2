"""VideoMAE (arXiv 2203.12602): ViT on the tubelets of a clip, without [CLS], with computed
positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.interop.huggingface.engine import reshaped, rule
from skillweave.interop.huggingface.families.bert import CLASSIFIER
from skillweave.interop.huggingface.families.vit import LINEAR, SIZES, blocks, layers
from skillweave.interop.huggingface.families.vit_mae import DECODER, SHARED, TARGET
from skillweave.interop.huggingface.families.vit_mae import SIZES as DECODER_SIZES
from skillweave.interop.huggingface.family import Family, Field, Head

CLIP_SIZES = {
    path.replace("image", "video"): field
    for path, field in SIZES.items()
    if path != "streams.image.patch"
}
"""A clip's patch is a tubelet."""


def _ours(config: Any) -> dict[str, Any]:
    biases = ["query_value"] if config.qv_bias else []
    biases += ["attention_output", "feed_forward", "norm"]
    return {
        "streams.video.tubelet": [config.tubelet_size, config.patch_size, config.patch_size],
        "encoder.biases": biases,
        f"{DECODER}.biases": biases,
        f"{DECODER}.norm_position": "pre",
        f"{DECODER}.last_norm": False,
        "targets.classification.pooling": "mean" if config.use_mean_pooling else "first",
        "targets.classification.norm_epsilon": 1e-5 if config.use_mean_pooling else None,
    }


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    frames, side, _ = ours["streams.video.tubelet"]
    return {
        "tubelet_size": frames,
        "patch_size": side,
        "qv_bias": "query_value" in ours["encoder.biases"],
    }


VIDEOMAE = Family(
    "videomae",
    {
        **CLIP_SIZES,
        "streams.video.frames": "num_frames",
        "encoder.last_norm": Field(
            "use_mean_pooling", lambda mean: not mean, lambda last: not last
        ),
    },
    (
        *(
            rule(
                f"embeddings.video.content.{name}.projection",
                "videomae.embeddings.patch_embeddings.projection",
            )
            for name in ("tubelet", "visible_tubelet")
        ),
        *layers("videomae."),
    ),
    {
        "VideoMAEModel": Head(
            unused=("classifier.", "fc_norm.", "decoder.", "encoder_to_decoder.", "mask_token")
        ),
        "VideoMAEForVideoClassification": Head(
            {"classification": {"hidden": False}},
            (rule("targets.classification.norm", "fc_norm"), LINEAR),
            CLASSIFIER,
            unused=("decoder.", "encoder_to_decoder.", "mask_token"),
        ),
        "VideoMAEForPreTraining": Head(
            {"masked_autoencoder": {"stream": "video", "bias": False, "norm_epsilon": 1e-5}},
            (
                rule(f"{TARGET}.projection", "encoder_to_decoder"),
                rule(f"{TARGET}.mask", reshaped("mask_token")),
                *blocks(
                    f"{DECODER}.blocks.{{i}}",
                    "decoder.decoder_layers.{i}",
                    "decoder.decoder_layers.{i}",
                ),
                rule(f"{TARGET}.norm", "decoder.norm"),
                rule(f"{TARGET}.output", "decoder.head"),
            ),
            {
                **DECODER_SIZES,
                **{f"{DECODER}.{option}": SIZES[f"encoder.{option}"] for option in SHARED},
            },
            constants={"streams.video.embedding": ["visible_tubelet", "interleaved_sinusoidal"]},
        ),
    },
    base="videomae.",
    constants={
        "streams.video.embedding": ["tubelet", "interleaved_sinusoidal"],
        "streams.video.cls_token": False,
        "encoder.norm_position": "pre",
    },
    required={"num_channels": 3},
    ours=_ours,
    theirs=_theirs,
    spans=({"modality": "video"},),
)

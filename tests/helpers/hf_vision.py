"""Reference models for images and clips (architecture, configuration class, options, arguments), and
masks of patches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config.streams import ImageStream, VideoStream

VOCABULARY, PAD = 41, 1
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 15,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "max_position_embeddings": 13,
    "pad_token_id": PAD,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
CLASSES = {"id2label": {0: "a", 1: "b", 2: "c"}}
VIT = {
    "hidden_size": 15,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "image_size": 12,
    "patch_size": 4,
}
BEIT = {**VIT, "vocab_size": 17, "layer_scale_init_value": 0.0}
VIDEOMAE = {**VIT, "num_frames": 6, "tubelet_size": 3}
MAE = {
    **VIT,
    "hidden_size": 20,
    "num_attention_heads": 5,
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 23,
    "mask_ratio": 0.6,
}
CLIPS = {**MAE, "num_frames": 6, "tubelet_size": 3}
VILT = {**BERT, **VIT, "attn_implementation": "eager"}
DINOV2 = {
    "hidden_size": 15,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "mlp_ratio": 3,
    "image_size": 12,
    "patch_size": 4,
    "layerscale_value": 0.3,
}
DINOV3 = {
    **VIT,
    "hidden_size": 24,
    "num_register_tokens": 3,
    "layerscale_value": 0.3,
    "pos_embed_rescale": None,
}
VISION: list[tuple[Any, ...]] = [
    ("ViTModel", "ViTConfig", VIT),
    ("ViTModel", "ViTConfig", VIT, {"add_pooling_layer": False}),
    (
        "ViTForImageClassification",
        "ViTConfig",
        {**VIT, **CLASSES, "qkv_bias": False, "layer_norm_eps": 1e-2},
    ),
    ("ViTForMaskedImageModeling", "ViTConfig", {**VIT, "encoder_stride": 4}),
    ("DeiTForMaskedImageModeling", "DeiTConfig", {**VIT, "encoder_stride": 4}),
    ("ViTMAEModel", "ViTMAEConfig", {**MAE, "qkv_bias": False}),
    (
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        {**MAE, "norm_pix_loss": True, "layer_norm_eps": 1e-2},
    ),
    ("DeiTModel", "DeiTConfig", VIT),
    ("DeiTModel", "DeiTConfig", {**VIT, "qkv_bias": False}, {"add_pooling_layer": False}),
    ("DeiTForImageClassification", "DeiTConfig", {**VIT, **CLASSES}),
    (
        "DeiTForImageClassificationWithTeacher",
        "DeiTConfig",
        {**VIT, **CLASSES, "hidden_act": "relu"},
    ),
    ("VideoMAEModel", "VideoMAEConfig", VIDEOMAE),
    ("VideoMAEModel", "VideoMAEConfig", {**VIDEOMAE, "use_mean_pooling": False, "qv_bias": False}),
    ("VideoMAEForVideoClassification", "VideoMAEConfig", {**VIDEOMAE, **CLASSES}),
    ("VideoMAEForPreTraining", "VideoMAEConfig", CLIPS),
    (
        "VideoMAEForPreTraining",
        "VideoMAEConfig",
        {
            **CLIPS,
            "use_mean_pooling": False,
            "norm_pix_loss": False,
            "qv_bias": False,
            "layer_norm_eps": 1e-2,
        },
    ),
    (
        "VideoMAEForVideoClassification",
        "VideoMAEConfig",
        {**VIDEOMAE, **CLASSES, "use_mean_pooling": False, "layer_norm_eps": 1e-2},
    ),
    ("BeitModel", "BeitConfig", BEIT),
    (
        "BeitModel",
        "BeitConfig",
        {
            **BEIT,
            "use_mean_pooling": False,
            "use_absolute_position_embeddings": True,
            "use_mask_token": True,
        },
        {"add_pooling_layer": False},
    ),
    (
        "BeitForMaskedImageModeling",
        "BeitConfig",
        {
            **BEIT,
            "use_mask_token": True,
            "use_shared_relative_position_bias": True,
            "use_mean_pooling": False,
        },
    ),
    (
        "BeitForImageClassification",
        "BeitConfig",
        {
            **BEIT,
            **CLASSES,
            "use_relative_position_bias": True,
            "layer_scale_init_value": 0.3,
            "layer_norm_eps": 1e-2,
        },
    ),
    ("BeitForImageClassification", "BeitConfig", {**BEIT, **CLASSES, "use_mean_pooling": False}),
    ("Dinov2Model", "Dinov2Config", {**DINOV2, "image_size": 15}),
    (
        "Dinov2Model",
        "Dinov2Config",
        {**DINOV2, "qkv_bias": False, "layer_norm_eps": 1e-2, "use_mask_token": False},
    ),
    (
        "Dinov2ForImageClassification",
        "Dinov2Config",
        {**DINOV2, **CLASSES, "use_swiglu_ffn": True},
    ),
    (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {**DINOV2, "num_register_tokens": 3, "hidden_act": "relu"},
    ),
    (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**DINOV2, **CLASSES, "use_swiglu_ffn": True},
    ),
    ("DINOv3ViTModel", "DINOv3ViTConfig", DINOV3),
    (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {
            **DINOV3,
            "use_gated_mlp": True,
            "key_bias": True,
            "proj_bias": False,
            "mlp_bias": False,
            "rope_theta": 7.0,
            "hidden_act": "silu",
        },
    ),
    (
        "Data2VecVisionModel",
        "Data2VecVisionConfig",
        {**BEIT, "use_shared_relative_position_bias": True, "use_mask_token": True},
    ),
    (
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        {**BEIT, **CLASSES, "use_relative_position_bias": True, "layer_scale_init_value": 0.3},
    ),
    ("ViltModel", "ViltConfig", VILT),
    ("ViltModel", "ViltConfig", {**VILT, "type_vocab_size": 3}, {"add_pooling_layer": False}),
    ("ViltForMaskedLM", "ViltConfig", {**VILT, "hidden_act": "relu", "layer_norm_eps": 1e-2}),
    ("ViltForQuestionAnswering", "ViltConfig", {**VILT, **CLASSES, "qkv_bias": False}),
]


def mask_patches(batch: Batch, stream: ImageStream | VideoStream | None) -> Batch:
    """The batch with masked patches, if the stream masks any: as many as MAE at a ratio of 0.6."""
    names = stream.embedding if stream else []
    if stream is None or not {"masked_patch", "visible_patch", "visible_tubelet"}.intersection(
        names
    ):
        return batch
    patches = stream.max_length - stream.num_prefix_tokens
    kept = int(patches * 0.4)
    masked = torch.rand(len(batch), patches).argsort(1) >= kept
    batch = replace(batch, masked=(torch.nn.functional.pad(masked, (stream.num_prefix_tokens, 0)),))
    if "masked_patch" in names:
        return batch
    length = stream.num_prefix_tokens + kept
    return replace(
        batch,
        layout=batch.layout.with_lengths((length,)),
        lengths=torch.full_like(batch.lengths, length),
    )


def their_masks(model: Any, batch: Batch) -> dict[str, Tensor]:
    """The masks as inputs of the Hugging Face model."""
    if not batch.masked:
        return {}
    registers = getattr(model.config, "num_register_tokens", 0)
    specials = {"deit": 2, "videomae": 0}.get(model.config.model_type, 1 + registers)
    masked = batch.masked[0][:, specials:]
    if type(model).__name__.startswith("ViTMAE"):  # It sorts patches by this noise.
        return {"noise": masked * 2.0 + torch.arange(masked.shape[1]) / masked.shape[1]}
    return {"bool_masked_pos": masked}

"""CLIP (arXiv 2103.00020): a text and an image stream, each with its own encoder, that are compared
by cosine; or one of the streams. Chinese-CLIP (arXiv 2211.01335): CLIP with BERT for the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.families.bert import BERT
from skillweave.interop.huggingface.families.vit import PATCHES
from skillweave.interop.huggingface.family import Family, Field, Fields, Head, activation, prefixed
from skillweave.interop.huggingface.preprocessors import IMAGE_FILE
from skillweave.interop.rules import Rules, block_rules, qkv, reshaped, with_prefix


def inside(part: str, fields: Fields) -> Fields:
    """The same fields for a part of the Hugging Face configuration."""
    found = {}
    for path, option in fields.items():
        option = Field(option) if isinstance(option, str) else option
        found[path] = option._replace(name=f"{part}.{option.name}")
    return found


def sizes(encoder: str) -> dict[str, Any]:
    """The sizes of an encoder, and what its layers are like."""
    return prefixed(
        encoder,
        layers="num_hidden_layers",
        heads="num_attention_heads",
        feed_forward="intermediate_size",
        activation=activation("hidden_act"),
        norm_epsilon="layer_norm_eps",
        attention_dropout="attention_dropout",
    )


def blocks(encoder: str) -> Rules:
    """Rules for the layers of an encoder."""
    return block_rules(
        f"{encoder}.blocks.{{i}}",
        "encoder.layers.{i}",
        qkv=qkv("self_attn.{}_proj"),
        attention_output="self_attn.out_proj",
        attention_norm="layer_norm1",
        inner="mlp.fc1",
        outer="mlp.fc2",
        feed_forward_norm="layer_norm2",
    )


def _image_rules(encoder: str) -> Rules:
    """`encoder`: the shared one, or that of the stream."""
    return {
        "embeddings.image.content.patch.first": reshaped("embeddings.class_embedding"),
        "embeddings.image.content.patch.projection": "embeddings.patch_embedding",
        "embeddings.image.positions.position.table": "embeddings.position_embedding",
        "embeddings.image.norm": "pre_layrnorm",
        **blocks(encoder),
        f"{encoder}.last_norm": "post_layernorm",
    }


PRE_NORM = {"norm_position": "pre", "dropout": 0.0}
PATCH_CONSTANTS = {"streams.image.norm": True, "streams.image.patch_bias": False}
POOLED_NORM: Rules = {"targets.pooled.norm": "vision_model.post_layernorm"}
POOLED_EPSILON: Fields = {"targets.pooled.norm_epsilon": "layer_norm_eps"}
POOLED_PROJECTION: Fields = {"targets.pooled.projection": "projection_dim"}
COMPARISON = ("visual_projection.", "text_projection.", "logit_scale")
NOT_IMAGE = ("text_model.", *COMPARISON)
NOT_TEXT = ("vision_model.", *COMPARISON)
CLIP_VISION = Family(
    model_type="clip_vision_model",
    prefix="vision_model.",
    fields={"width": "hidden_size", **PATCHES, **sizes("encoder")},
    rules=_image_rules("encoder"),
    heads={
        "CLIPVisionModel": Head(
            targets={"pooled": {"hidden": False}},
            rules=POOLED_NORM,
            fields=POOLED_EPSILON,
            unused=NOT_IMAGE,
        ),
        "CLIPVisionModelWithProjection": Head(
            targets={"pooled": {"hidden": False}},
            rules={**POOLED_NORM, "targets.pooled.projection": "visual_projection"},
            fields={**POOLED_EPSILON, **POOLED_PROJECTION},
            unused=NOT_IMAGE,
        ),
    },
    constants={**prefixed("encoder", **PRE_NORM), **PATCH_CONSTANTS, "encoder.last_norm": False},
    required={"num_channels": 3},
    spans=({"modality": "image"},),
    ignored=BERT.ignored,
    processor_files=(IMAGE_FILE,),
)
TEXT_FIELDS = {
    "width": "hidden_size",
    "streams.text.vocabulary": "vocab_size",
    "streams.text.max_length": "max_position_embeddings",
    **sizes("encoder"),
}
TEXT_RULES = {
    "embeddings.text.content.word": "embeddings.token_embedding",
    "embeddings.text.positions.position.table": "embeddings.position_embedding",
    **blocks("encoder"),
    "encoder.last_norm": "final_layer_norm",
}
CLIP_TEXT = Family(
    model_type="clip_text_model",
    prefix="text_model.",
    fields=TEXT_FIELDS,
    rules=TEXT_RULES,
    heads={
        "CLIPTextModel": Head(
            targets={"pooled": {"hidden": False, "pooling": "last"}}, unused=NOT_TEXT
        ),
        "CLIPTextModelWithProjection": Head(
            targets={"pooled": {"hidden": False, "pooling": "last"}},
            rules={"targets.pooled.projection": "text_projection"},
            fields=POOLED_PROJECTION,
            unused=NOT_TEXT,
        ),
    },
    constants={
        **prefixed("encoder", **PRE_NORM),
        "streams.text.embedding": ["word", "position"],
        "streams.text.norm": False,
    },
    spans=({"modality": "text", "attention": "causal"},),
    ignored=BERT.ignored,
)


def _comparison(text: str) -> Head:
    """The cosine of both streams in a common space. `text`: the token that stands for a text."""
    return Head(
        targets={"contrastive": {"pooling": {"text": text, "image": "first"}}},
        rules={
            "targets.contrastive.projections.text": "text_projection",
            "targets.contrastive.projections.image": "visual_projection",
            "targets.contrastive.log_scale": "logit_scale",
        },
        fields={"targets.contrastive.projection": "projection_dim"},
    )


def _two_streams(model_type: str, text: Family, heads: Mapping[str, Head]) -> Family:
    (text_span,) = text.spans
    image = {"streams.image.width": "hidden_size", **PATCHES, **sizes("streams.image.encoder")}
    return Family(
        model_type=model_type,
        fields={**inside("text_config", text.fields), **inside("vision_config", image)},
        rules={
            **with_prefix("text_model.", text.rules),
            **with_prefix("vision_model.", _image_rules("stream_encoders.image")),
        },
        heads=heads,
        constants={
            **text.constants,
            **PATCH_CONSTANTS,
            **prefixed("streams.image.encoder", **PRE_NORM),
        },
        required={"vision_config.num_channels": 3},
        spans=(text_span, {"modality": "image", "encoder_pass": 1}),
        ignored=BERT.ignored,
        processor_files=(IMAGE_FILE,),
        text_config="text_config",
    )


CLASSIFICATION = Head.classification(
    options={"pooling": "rest"},
    fields=inside("vision_config", POOLED_EPSILON),
    unused=NOT_IMAGE,
    family=replace(
        CLIP_VISION,
        model_type="clip",
        fields=inside("vision_config", CLIP_VISION.fields),
        required={"vision_config.num_channels": 3},
    ),
)
CLIP = _two_streams(
    "clip",
    CLIP_TEXT,
    {
        "CLIPModel": _comparison("last"),
        "CLIPForImageClassification": replace(
            CLASSIFICATION,
            # Hugging Face's model has the last norm too, although the classifier skips it.
            targets={**CLASSIFICATION.targets, "pooled": {"hidden": False}},
            rules={**POOLED_NORM, **CLASSIFICATION.rules},
        ),
    },
)
CHINESE_CLIP = _two_streams("chinese_clip", BERT, {"ChineseCLIPModel": _comparison("first")})
CLIP.register()
CLIP_VISION.register()
CLIP_TEXT.register()
CHINESE_CLIP.register()

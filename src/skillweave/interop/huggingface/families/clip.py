"""CLIP (arXiv 2103.00020): a text and an image stream, each with an encoder of its own, compared by
cosine; or one of them alone.

Chinese-CLIP (arXiv 2211.01335): the same with BERT for the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from skillweave.interop.huggingface.engine import Rule, joined, reshaped, rule
from skillweave.interop.huggingface.families import bert
from skillweave.interop.huggingface.families.vit import LINEAR
from skillweave.interop.huggingface.family import Family, Field, Head, activation

Fields = Mapping[str, str | Field]


def _inside(part: str, fields: Fields) -> dict[str, Field]:
    """The same options of a part of theirs."""
    whole = {
        path: Field(field) if isinstance(field, str) else field for path, field in fields.items()
    }
    return {path: field._replace(theirs=f"{part}.{field.theirs}") for path, field in whole.items()}


def _layers(encoder: str) -> dict[str, str | Field]:
    return {
        f"{encoder}.layers": "num_hidden_layers",
        f"{encoder}.heads": "num_attention_heads",
        f"{encoder}.feed_forward": "intermediate_size",
        f"{encoder}.activation": activation("hidden_act"),
        f"{encoder}.norm_epsilon": "layer_norm_eps",
        f"{encoder}.attention_dropout": "attention_dropout",
    }


TEXT: Fields = {
    "width": "hidden_size",
    "streams.text.vocabulary": "vocab_size",
    "streams.text.max_length": "max_position_embeddings",
    **_layers("encoder"),
}
PICTURE: Fields = {"streams.image.size": "image_size", "streams.image.patch": "patch_size"}
LONE_PICTURE: Fields = {"width": "hidden_size", **PICTURE, **_layers("encoder")}
OWN_PICTURE: Fields = {
    "streams.image.width": "hidden_size",
    **PICTURE,
    **_layers("streams.image.encoder"),
}
"""With the encoder that streams share, or with one of its own."""


def _blocks(ours: str, theirs: str) -> Iterator[Rule]:
    ours, theirs = ours + ".blocks.{i}", theirs + ".encoder.layers.{i}"
    yield rule(
        f"{ours}.attention.qkv.experts.shared",
        joined(*(f"{theirs}.self_attn.{x}_proj" for x in "qkv")),
    )
    yield rule(f"{ours}.attention.output", f"{theirs}.self_attn.out_proj")
    yield rule(f"{ours}.attention_norm", f"{theirs}.layer_norm1")
    yield rule(f"{ours}.feed_forward.experts.shared.inner", f"{theirs}.mlp.fc1")
    yield rule(f"{ours}.feed_forward.experts.shared.outer", f"{theirs}.mlp.fc2")
    yield rule(f"{ours}.feed_forward_norm", f"{theirs}.layer_norm2")


def _picture(encoder: str) -> tuple[Rule, ...]:
    return (
        rule(
            "embeddings.image.content.patch.first",
            reshaped("vision_model.embeddings.class_embedding"),
        ),
        rule(
            "embeddings.image.content.patch.projection", "vision_model.embeddings.patch_embedding"
        ),
        rule(
            "embeddings.image.positions.position.table",
            "vision_model.embeddings.position_embedding",
        ),
        rule("embeddings.image.norm", "vision_model.pre_layrnorm"),
        *_blocks(encoder, "vision_model"),
        rule(f"{encoder}.last_norm", "vision_model.post_layernorm"),
    )


TEXT_RULES = (
    rule("embeddings.text.content.word", "text_model.embeddings.token_embedding"),
    rule("embeddings.text.positions.position.table", "text_model.embeddings.position_embedding"),
    *_blocks("encoder", "text_model"),
    rule("encoder.last_norm", "text_model.final_layer_norm"),
)
OWN_RULES = _picture("stream_encoders.image")
PRE_NORM = {"encoder.norm_position": "pre", "encoder.dropout": 0.0}
TEXT_FIXED = {
    **PRE_NORM,
    "streams.text.embedding": ["word", "position"],
    "streams.text.norm": False,
}
PICTURE_FIXED = {"streams.image.norm": True, "streams.image.patch_bias": False}
OWN_FIXED = {
    **PICTURE_FIXED,
    **{f"streams.image.{option}": value for option, value in PRE_NORM.items()},
}
IGNORED = (r"(^|\.)position_ids$",)


def _compared(text: str) -> Head:
    """By cosine in a space of their own. `text`: which of its tokens stands for a text."""
    return Head(
        {"contrastive": {"pooling": {"text": text, "image": "first"}}},
        (
            rule("targets.contrastive.projections.text", "text_projection"),
            rule("targets.contrastive.projections.image", "visual_projection"),
            rule("targets.contrastive.log_scale", "logit_scale"),
        ),
        {"targets.contrastive.projection": "projection_dim"},
    )


POOLED = rule("targets.pooled.norm", "vision_model.post_layernorm")
EPSILON = {"targets.pooled.norm_epsilon": "layer_norm_eps"}
PROJECTION = {"targets.pooled.projection": "projection_dim"}
LAST = {"hidden": False, "pooling": "last"}
NO_TEXT = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")
OTHERS = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
CLIP_VISION = Family(
    "clip_vision_model",
    LONE_PICTURE,
    _picture("encoder"),
    {
        "CLIPVisionModel": Head({"pooled": {"hidden": False}}, (POOLED,), EPSILON, unused=OTHERS),
        "CLIPVisionModelWithProjection": Head(
            {"pooled": {"hidden": False}},
            (POOLED, rule("targets.pooled.projection", "visual_projection")),
            {**EPSILON, **PROJECTION},
            unused=OTHERS,
        ),
    },
    base="vision_model.",
    constants={**PRE_NORM, **PICTURE_FIXED, "encoder.last_norm": False},
    required={"num_channels": 3},
    spans=({"modality": "image"},),
    ignored=IGNORED,
)
CLIP_TEXT = Family(
    "clip_text_model",
    TEXT,
    TEXT_RULES,
    {
        "CLIPTextModel": Head({"pooled": LAST}, unused=NO_TEXT),
        "CLIPTextModelWithProjection": Head(
            {"pooled": LAST},
            (rule("targets.pooled.projection", "text_projection"),),
            PROJECTION,
            unused=NO_TEXT,
        ),
    },
    base="text_model.",
    constants=TEXT_FIXED,
    spans=({"modality": "text", "attention": "causal"},),
    ignored=IGNORED,
)
ONLY_PICTURES = replace(
    CLIP_VISION,
    model_type="clip",
    fields=_inside("vision_config", LONE_PICTURE),
    required={"vision_config.num_channels": 3},
)
CLIP = Family(
    "clip",
    {**_inside("text_config", TEXT), **_inside("vision_config", OWN_PICTURE)},
    (*TEXT_RULES, *OWN_RULES),
    {
        "CLIPModel": _compared("last"),
        "CLIPForImageClassification": Head(
            # theirs has the last norm too
            {"classification": {"hidden": False, "pooling": "rest"}, "pooled": {"hidden": False}},
            (POOLED, LINEAR),
            {**bert.CLASSIFIER, **_inside("vision_config", EPSILON)},
            unused=OTHERS,
            family=ONLY_PICTURES,
        ),
    },
    constants={**TEXT_FIXED, **OWN_FIXED},
    required={"vision_config.num_channels": 3},
    spans=({"modality": "text", "attention": "causal"}, {"modality": "image", "encoder_pass": 1}),
    ignored=IGNORED,
)
CHINESE_CLIP = Family(
    "chinese_clip",
    {
        **_inside(
            "text_config", {**bert.SIZES, "streams.text.max_length": "max_position_embeddings"}
        ),
        **_inside("vision_config", OWN_PICTURE),
    },
    (*bert.embedding("text_model."), *bert.layers("text_model."), *OWN_RULES),
    {"ChineseCLIPModel": _compared("first")},
    constants=OWN_FIXED,
    required={"vision_config.num_channels": 3},
    spans=({"modality": "text"}, {"modality": "image", "encoder_pass": 1}),
    ignored=bert.IGNORED,
)
FAMILIES = (CLIP, CLIP_VISION, CLIP_TEXT, CHINESE_CLIP)

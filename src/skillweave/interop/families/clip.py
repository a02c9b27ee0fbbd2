"""CLIP (arXiv 2103.00020): a text and an image stream, each with an encoder of its own, compared by cosine.

Chinese-CLIP (arXiv 2211.01335): the same with BERT for the text."""

from __future__ import annotations

from collections.abc import Iterator

from skillweave.interop.engine import Rule, joined, reshaped, rule
from skillweave.interop.families import bert
from skillweave.interop.family import Family, Field, Head, activation, within

IMAGE = "stream_encoders.image"


def _blocks(ours: str, theirs: str) -> Iterator[Rule]:
    ours, theirs = ours + ".blocks.{i}", theirs + ".encoder.layers.{i}"
    yield rule(f"{ours}.attention.qkv.experts.shared", joined(*(f"{theirs}.self_attn.{x}_proj" for x in "qkv")))
    yield rule(f"{ours}.attention.output", f"{theirs}.self_attn.out_proj")
    yield rule(f"{ours}.attention_norm", f"{theirs}.layer_norm1")
    yield rule(f"{ours}.feed_forward.experts.shared.inner", f"{theirs}.mlp.fc1")
    yield rule(f"{ours}.feed_forward.experts.shared.outer", f"{theirs}.mlp.fc2")
    yield rule(f"{ours}.feed_forward_norm", f"{theirs}.layer_norm2")


def _fields(encoder: str, theirs: str) -> dict[str, str | Field]:
    return {
        f"{encoder}.layers": f"{theirs}.num_hidden_layers",
        f"{encoder}.heads": f"{theirs}.num_attention_heads",
        f"{encoder}.feed_forward": f"{theirs}.intermediate_size",
        f"{encoder}.activation": activation(f"{theirs}.hidden_act"),
        f"{encoder}.norm_epsilon": f"{theirs}.layer_norm_eps",
        f"{encoder}.attention_dropout": f"{theirs}.attention_dropout",
    }


PICTURES = {
    "streams.image.width": "vision_config.hidden_size",
    "streams.image.size": "vision_config.image_size",
    "streams.image.patch": "vision_config.patch_size",
    **_fields("streams.image.encoder", "vision_config"),
}
PICTURE_RULES = (
    rule("embeddings.image.content.patch.first", reshaped("vision_model.embeddings.class_embedding")),
    rule("embeddings.image.content.patch.projection", "vision_model.embeddings.patch_embedding"),
    rule("embeddings.image.positions.position.table", "vision_model.embeddings.position_embedding"),
    rule("embeddings.image.norm", "vision_model.pre_layrnorm"),
    *_blocks(IMAGE, "vision_model"),
    rule(f"{IMAGE}.last_norm", "vision_model.post_layernorm"),
)
FIXED = {
    "streams.image.norm": True,
    "streams.image.patch_bias": False,
    "streams.image.encoder.norm_position": "pre",
    "streams.image.encoder.dropout": 0.0,
}


def _compared(text: str) -> Head:
    """By cosine in a space of their own. `text`: which of its tokens stands for a text."""
    return Head(
        {"contrastive": {"pooling": {"text": text, "image": "first"}}},
        (
            rule("targets.contrastive.projections.text", "text_projection"),
            rule("targets.contrastive.projections.image", "visual_projection"),
            rule("targets.contrastive.log_scale", "logit_scale"),
        ),
        {"targets.contrastive.projection": Field("projection_dim")},
    )


CLIP = Family(
    "clip",
    {
        "width": "text_config.hidden_size",
        "streams.text.vocabulary": "text_config.vocab_size",
        "streams.text.max_length": "text_config.max_position_embeddings",
        **_fields("encoder", "text_config"),
        **PICTURES,
    },
    (
        rule("embeddings.text.content.word", "text_model.embeddings.token_embedding"),
        rule("embeddings.text.positions.position.table", "text_model.embeddings.position_embedding"),
        *_blocks("encoder", "text_model"),
        rule("encoder.last_norm", "text_model.final_layer_norm"),
        *PICTURE_RULES,
    ),
    {"CLIPModel": _compared("last")},
    constants={
        **FIXED,
        "streams.text.embedding": ["word", "position"],
        "streams.text.norm": False,
        "encoder.norm_position": "pre",
        "encoder.dropout": 0.0,
    },
    required={"vision_config.num_channels": 3},
    spans=({"modality": "text", "attention": "causal"}, {"modality": "image", "encoder_pass": 1}),
    ignored=(r"\.position_ids$",),
)

CHINESE_CLIP = Family(
    "chinese_clip",
    {
        **{path: within("text_config", field) for path, field in bert.SIZES.items()},
        "streams.text.max_length": "text_config.max_position_embeddings",
        **PICTURES,
    },
    (*bert.embedding("text_model."), *bert.layers("text_model."), *PICTURE_RULES),
    {"ChineseCLIPModel": _compared("first")},
    constants=FIXED,
    required={"vision_config.num_channels": 3},
    spans=({"modality": "text"}, {"modality": "image", "encoder_pass": 1}),
    ignored=bert.IGNORED,
)
FAMILIES = (CLIP, CHINESE_CLIP)

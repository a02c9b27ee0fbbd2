"""SigLIP (arXiv 2303.15343) and SigLIP 2 (arXiv 2502.14786) with pictures of a fixed size: CLIP
without [CLS] and causal attention, with attention pooling and the sigmoid loss."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.families.clip import (
    PRE_NORM,
    TEXT_FIELDS,
    TEXT_RULES,
    blocks,
    inside,
    sizes,
)
from skillweave.interop.huggingface.families.vit import PATCHES
from skillweave.interop.huggingface.family import (
    Family,
    Fields,
    Head,
    ProcessorFile,
    activation,
    prefixed,
)
from skillweave.interop.huggingface.json_files import read_json
from skillweave.interop.huggingface.preprocessors import IMAGE_FILE
from skillweave.interop.huggingface.tokenizer_files import SETTINGS
from skillweave.interop.rules import Rules, reshaped, with_prefix
from skillweave.model.config import ModelConfig


def _image_rules(encoder: str) -> Rules:
    return {
        "embeddings.image.content.patch.projection": "embeddings.patch_embedding",
        "embeddings.image.positions.position.table": "embeddings.position_embedding",
        **blocks(encoder),
        f"{encoder}.last_norm": "post_layernorm",
    }


def _pooling(target: str, module: str) -> tuple[Rules, Fields]:
    """The attention pooling of pictures: its rules, and its fields of their image model.

    `target`: which has it. `module`: the path of the pooling in our model.
    """
    head = "vision_model.head"
    rules: Rules = {
        f"{module}.probe": reshaped(f"{head}.probe"),
        f"{module}.qkv.weight": f"{head}.attention.in_proj_weight",
        f"{module}.qkv.bias": f"{head}.attention.in_proj_bias",
        f"{module}.output": f"{head}.attention.out_proj",
        f"{module}.norm": f"{head}.layernorm",
        f"{module}.feed_forward.inner": f"{head}.mlp.fc1",
        f"{module}.feed_forward.outer": f"{head}.mlp.fc2",
    }
    fields = prefixed(
        f"targets.{target}.attention",
        heads="num_attention_heads",
        feed_forward="intermediate_size",
        activation=activation("hidden_act"),
        norm_epsilon="layer_norm_eps",
    )
    return rules, fields


def _read_padding(folder: Path, settings: dict[str, Any]) -> None:
    """Raises ConfigError for a tokenizer that pads before texts; warns of one that hides padding,
    which SigLIP is trained to see."""
    given = read_json(folder / SETTINGS)
    if given.get("padding_side") == "left":
        raise ConfigError(
            f"{folder / SETTINGS}: padding_side='left' has no counterpart here; it must be 'right'"
        )
    if given and "attention_mask" in given.get("model_input_names", ("attention_mask",)):
        warnings.warn(
            f"{folder / SETTINGS}: model_input_names has attention_mask, with which Transformers"
            " hides the padding of texts; SigLIP was trained to see it, as it does here",
            stacklevel=2,
        )


def _write_padding(folder: Path, config: ModelConfig) -> None:
    """Tokenizers are written with padding at the right."""


IMAGE_CONSTANTS = {"streams.image.cls_token": False, "streams.image.norm": False}
TEXT_CONSTANTS = {
    **prefixed("encoder", **PRE_NORM),
    **prefixed("streams.text", embedding=["word", "position"], norm=False, pad_to_max_length=True),
}
REQUIRED = {"num_channels": 3, "vision_use_head": True}
NOT_IMAGE = ("text_model.", "logit_scale", "logit_bias", "classifier.")
POOLED_RULES, POOLED_FIELDS = _pooling("pooled", "targets.pooled.attention")
PAIR_RULES, PAIR_FIELDS = _pooling("contrastive", "targets.contrastive.attention.image")
VISION = Family(
    model_type="siglip_vision_model",
    prefix="vision_model.",
    fields={"width": "hidden_size", **PATCHES, **sizes("encoder")},
    rules=_image_rules("encoder"),
    heads={
        "SiglipVisionModel": Head(
            targets={"pooled": {"hidden": False, "pooling": "attention"}},
            rules=POOLED_RULES,
            fields=POOLED_FIELDS,
            unused=NOT_IMAGE,
        )
    },
    constants={**prefixed("encoder", **PRE_NORM), **IMAGE_CONSTANTS},
    required=REQUIRED,
    spans=({"modality": "image"},),
    processor_files=(IMAGE_FILE,),
)
TEXT = Family(
    model_type="siglip_text_model",
    prefix="text_model.",
    fields=TEXT_FIELDS,
    rules=TEXT_RULES,
    heads={
        "SiglipTextModel": Head(
            targets={"pooled": {"pooling": "last", "activation": "none"}},
            rules={"targets.pooled.pooler": "text_model.head"},
            fields={"targets.pooled.hidden_size": "projection_size"},
            unused=("vision_model.", "logit_scale", "logit_bias"),
        )
    },
    constants=TEXT_CONSTANTS,
    processor_files=(ProcessorFile(_read_padding, _write_padding),),
)


def _read_pairs(config: Any) -> dict[str, Any]:
    text, image = config.text_config.projection_size, config.vision_config.hidden_size
    if text != image:
        raise ConfigError(
            f"siglip: text_config.projection_size={text} cannot be compared with pictures; it must"
            f" be vision_config.hidden_size, {image}"
        )
    return {}


IMAGE_HEAD = VISION.heads["SiglipVisionModel"]
CLASSIFICATION = Head.classification(
    options={"pooling": "mean"},
    fields=inside("vision_config", IMAGE_HEAD.fields),
    unused=IMAGE_HEAD.unused[:-1],
    family=replace(
        VISION,
        model_type="siglip",
        fields=inside("vision_config", VISION.fields),
        required={f"vision_config.{name}": value for name, value in REQUIRED.items()},
    ),
)
SIGLIP = Family(
    model_type="siglip",
    fields={
        **inside("text_config", TEXT.fields),
        **inside(
            "vision_config",
            {"streams.image.width": "hidden_size", **PATCHES, **sizes("streams.image.encoder")},
        ),
    },
    rules={
        **with_prefix("text_model.", TEXT.rules),
        **with_prefix("vision_model.", _image_rules("stream_encoders.image")),
    },
    heads={
        "SiglipModel": Head(
            targets={
                "contrastive": {
                    "pooling": {"text": "last", "image": "attention"},
                    "loss": "sigmoid",
                    "max_scale": None,
                    "projection_bias": True,
                }
            },
            rules={
                "targets.contrastive.projections.text": "text_model.head",
                "targets.contrastive.log_scale": reshaped("logit_scale"),
                "targets.contrastive.bias": reshaped("logit_bias"),
                **PAIR_RULES,
            },
            fields={
                "targets.contrastive.projection.text": "text_config.projection_size",
                **inside("vision_config", PAIR_FIELDS),
            },
            unused=("classifier.",),
        ),
        # Transformers' model has the pooling too, although the classifier does not read it.
        "SiglipForImageClassification": replace(
            CLASSIFICATION,
            targets={**CLASSIFICATION.targets, **IMAGE_HEAD.targets},
            rules={**CLASSIFICATION.rules, **IMAGE_HEAD.rules},
        ),
    },
    constants={
        **TEXT_CONSTANTS,
        **IMAGE_CONSTANTS,
        **prefixed("streams.image.encoder", **PRE_NORM),
    },
    required={f"vision_config.{name}": value for name, value in REQUIRED.items()},
    read_options=_read_pairs,
    spans=({"modality": "text"}, {"modality": "image", "encoder_pass": 1}),
    processor_files=(IMAGE_FILE, *TEXT.processor_files),
    text_config="text_config",
)
SIGLIP.register()
VISION.register()
TEXT.register()
Family(
    model_type="siglip2",
    fields={},
    rules={},
    refused=(
        "pictures of any aspect ratio (NaFlex) have no counterpart here; convert SigLIP 2 for"
        " pictures of a fixed size, whose model_type is 'siglip'"
    ),
).register()

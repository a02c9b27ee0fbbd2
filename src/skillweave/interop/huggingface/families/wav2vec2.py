"""wav2vec 2.0 (arXiv 2006.11477) and HuBERT (arXiv 2106.07447): convolutions over a waveform, then
BERT's encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.engine import Rule, joined, reshaped, rule
from skillweave.interop.huggingface.families.bert import CLASSIFIER
from skillweave.interop.huggingface.family import Family, Field, Head, activation

SOUND, WAVEFORM = "embeddings.sound", "embeddings.sound.content.waveform"
FIELDS: Mapping[str, str | Field] = {
    "width": "hidden_size",
    "streams.sound.kernels": Field("conv_kernel", list, list),
    "streams.sound.strides": Field("conv_stride", list, list),
    "streams.sound.convolution_norm": "feat_extract_norm",
    "streams.sound.convolution_bias": "conv_bias",
    "streams.sound.position_kernel": "num_conv_pos_embeddings",
    "streams.sound.position_groups": "num_conv_pos_embedding_groups",
    "encoder.layers": "num_hidden_layers",
    "encoder.heads": "num_attention_heads",
    "encoder.feed_forward": "intermediate_size",
    "encoder.activation": activation("hidden_act"),
    "encoder.dropout": "hidden_dropout",
    "encoder.attention_dropout": "attention_dropout",
    "encoder.activation_dropout": "activation_dropout",
}
REQUIRED = {
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "pad_token_id": 0,  # the blank
    "add_adapter": False,  # this and the next: of wav2vec 2.0
    "adapter_attn_dim": None,
    "use_weighted_layer_sum": False,
    "feat_proj_layer_norm": True,  # this and the next: of HuBERT
    "conv_pos_batch_norm": False,
}


def _ours(config: Any) -> dict[str, Any]:
    if len(set(config.conv_dim)) > 1:
        raise ConfigError(
            f"{config.model_type}: conv_dim={config.conv_dim} has no counterpart here; all must be"
            " equal"
        )
    return {
        "streams.sound.channels": config.conv_dim[0],
        "streams.sound.norm": not config.do_stable_layer_norm,
        "encoder.norm_position": "pre" if config.do_stable_layer_norm else "post",
        "streams.sound.mask_vector": config.mask_time_prob > 0 or config.mask_feature_prob > 0,
    }


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    masked = {} if ours["streams.sound.mask_vector"] else {"mask_time_prob": 0.0}
    return masked | {
        "conv_dim": [ours["streams.sound.channels"]] * len(ours["streams.sound.kernels"]),
        "do_stable_layer_norm": ours["encoder.norm_position"] == "pre",
    }


CHARACTERS = Field(
    "vocab_size",
    lambda size: [f"<{i}>" for i in range(1, size)],
    lambda characters: len(characters) + 1,
)
"""How many there are; what they are stands in a file of the tokeniser's."""


def _heads(name: str) -> dict[str, Head]:
    """The encoder alone, characters by CTC, whose blank must come first, and classes; what
    pretraining adds is not read."""
    pretraining = ("quantizer.", "project_q.", "project_hid.")
    rules = (rule("targets.ctc.classifier", "lm_head"),)
    ctc = Head({"ctc": {}}, rules, {"targets.ctc.characters": CHARACTERS}, unused=pretraining)
    projected = (
        rule("targets.classification.pooler", "projector"),
        rule("targets.classification.classifier", "classifier"),
    )
    classes = {**CLASSIFIER, "targets.classification.hidden_size": "classifier_proj_size"}
    whole = Head(
        {"classification": {"pooling": "mean", "activation": "none"}},
        projected,
        classes,
        unused=pretraining,
    )
    return {
        f"{name}Model": Head(unused=("lm_head.", *pretraining)),
        f"{name}ForCTC": ctc,
        f"{name}ForSequenceClassification": whole,
    }


def _rules(base: str) -> tuple[Rule, ...]:
    convolution, layer = base + "feature_extractor.conv_layers.{i}", base + "encoder.layers.{i}"
    position, block = base + "encoder.pos_conv_embed.conv.", "encoder.blocks.{i}"
    weights = {"gain": ("original0", "g"), "direction": ("original1", "v")}
    return (
        rule(f"{WAVEFORM}.convolutions.{{i}}", f"{convolution}.conv"),
        rule(f"{WAVEFORM}.norms.{{i}}", f"{convolution}.layer_norm"),
        rule(f"{WAVEFORM}.scale", base + "feature_extractor.conv_layers.0.layer_norm.weight"),
        rule(f"{WAVEFORM}.shift", base + "feature_extractor.conv_layers.0.layer_norm.bias"),
        rule(f"{WAVEFORM}.norm", base + "feature_projection.layer_norm"),
        rule(f"{WAVEFORM}.projection", reshaped(base + "feature_projection.projection")),
        rule(f"{SOUND}.mask", base + "masked_spec_embed"),
        *(
            rule(
                f"{SOUND}.positions.convolution.{ours}",
                f"{position}parametrizations.weight.{new}",
                f"{position}weight_{old}",
            )
            for ours, (new, old) in weights.items()
        ),
        rule(f"{SOUND}.positions.convolution.bias", position + "bias"),
        rule(f"{SOUND}.norm", base + "encoder.layer_norm"),
        rule("encoder.last_norm", base + "encoder.layer_norm"),
        rule(
            f"{block}.attention.qkv.experts.shared",
            joined(*(f"{layer}.attention.{x}_proj" for x in "qkv")),
        ),
        rule(f"{block}.attention.output", f"{layer}.attention.out_proj"),
        rule(f"{block}.attention_norm", f"{layer}.layer_norm"),
        rule(
            f"{block}.feed_forward.experts.shared.inner", f"{layer}.feed_forward.intermediate_dense"
        ),
        rule(f"{block}.feed_forward.experts.shared.outer", f"{layer}.feed_forward.output_dense"),
        rule(f"{block}.feed_forward_norm", f"{layer}.final_layer_norm"),
    )


def _family(model_type: str, name: str) -> Family:
    base = f"{model_type}."
    return Family(
        model_type,
        FIELDS,
        _rules(base),
        _heads(name),
        base=base,
        constants={
            "streams.sound.embedding": ["waveform", "convolution"],
            "encoder.norm_epsilon": 1e-5,
        },
        required=REQUIRED,
        ours=_ours,
        theirs=_theirs,
        spans=({"modality": "sound"},),
    )


FAMILIES = (_family("wav2vec2", "Wav2Vec2"), _family("hubert", "Hubert"))

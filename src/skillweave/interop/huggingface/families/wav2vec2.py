"""wav2vec 2.0 (arXiv 2006.11477) and HuBERT (arXiv 2106.07447): convolutions over a waveform, then
BERT's encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skillweave.components.targets.ctc import CTCConfig
from skillweave.config import ConfigError
from skillweave.config.image_processor import read_preprocessors
from skillweave.interop.huggingface.family import (
    Family,
    Field,
    Head,
    ProcessorFile,
    activation,
    prefixed,
)
from skillweave.interop.huggingface.json_files import read_json, write_json
from skillweave.interop.huggingface.preprocessors import sound_file
from skillweave.interop.huggingface.tokenizer_files import SETTINGS
from skillweave.interop.rules import Rules, block_rules, qkv, reshaped
from skillweave.model.config import ModelConfig

VOCABULARY = "vocab.json"
BLANK, SPACE = "<pad>", "|"
"""How a CTC tokenizer writes the blank and the space between words."""
PRETRAINING = ("quantizer.", "project_q.", "project_hid.")
FEATURES = sound_file(
    "Wav2Vec2FeatureExtractor",
    lambda stream: {"feature_size": 1, "do_normalize": not stream.keeps_loudness},
)


def _read_features(folder: Path, settings: dict[str, Any]) -> None:
    FEATURES.read(folder, settings)
    for given in read_preprocessors(folder):
        if "sampling_rate" in given:
            settings["streams"]["sound"]["normalised"] = given.get("do_normalize", True)


FEATURES_FILE = ProcessorFile(_read_features, FEATURES.write)


def _read_characters(folder: Path, settings: dict[str, Any]) -> None:
    """Update the characters of the target. Raises ConfigError for more characters than classes."""
    target = settings["targets"].get("ctc")
    names = {number: token for token, number in read_json(folder / VOCABULARY).items()}
    if not target or not names:
        return
    given = target["characters"]
    if max(names) > len(given):
        raise ConfigError(
            f"{folder / VOCABULARY}: it numbers characters up to {max(names)}, and the output layer"
            f" up to {len(given)}"
        )
    target["characters"] = [
        names.get(number, character).replace(SPACE, " ")
        for number, character in enumerate(given, start=1)
    ]


def _write_characters(folder: Path, config: ModelConfig) -> None:
    """Write the files of `Wav2Vec2CTCTokenizer`."""
    for target in config.targets.values():
        if isinstance(target, CTCConfig):
            tokens = [BLANK, *(name.replace(" ", SPACE) for name in target.characters)]
            numbers = {token: number for number, token in enumerate(tokens)}
            write_json(folder / VOCABULARY, numbers)
            settings = {
                "tokenizer_class": "Wav2Vec2CTCTokenizer",
                "word_delimiter_token": SPACE,
                "pad_token": BLANK,
                "unk_token": BLANK,
                "bos_token": None,
                "eos_token": None,
            }
            write_json(folder / SETTINGS, settings)


def _read_options(config: Any) -> dict[str, Any]:
    if len(set(config.conv_dim)) > 1:
        raise ConfigError(
            f"{config.model_type}: conv_dim={config.conv_dim} has no counterpart here; all must be"
            " equal"
        )
    pre_norm = getattr(config, "do_stable_layer_norm", False)
    return {
        "streams.sound.channels": config.conv_dim[0],
        "streams.sound.norm": not pre_norm,
        "encoder.norm_position": "pre" if pre_norm else "post",
        "streams.sound.mask_vector": config.mask_time_prob > 0 or config.mask_feature_prob > 0,
    }


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    convolutions = len(options["streams.sound.kernels"])
    found = {
        "conv_dim": [options["streams.sound.channels"]] * convolutions,
        **({"do_stable_layer_norm": True} if options["encoder.norm_position"] == "pre" else {}),
    }
    return found if options["streams.sound.mask_vector"] else found | {"mask_time_prob": 0.0}


CHARACTERS = Field(
    "vocab_size",
    read=lambda size: [f"<{number}>" for number in range(1, size)],
    write=lambda characters: len(characters) + 1,
    compare=len,
)
"""The configuration gives the number of characters, a file of the tokenizer the characters."""


SOUND = "embeddings.sound"
WAVEFORM = f"{SOUND}.content.waveform"
POSITION = "encoder.pos_conv_embed.conv"
RULES: Rules = {
    f"{WAVEFORM}.convolutions.{{i}}": "feature_extractor.conv_layers.{i}.conv",
    f"{WAVEFORM}.norms.{{i}}": "feature_extractor.conv_layers.{i}.layer_norm",
    f"{WAVEFORM}.scale": "feature_extractor.conv_layers.0.layer_norm.weight",
    f"{WAVEFORM}.shift": "feature_extractor.conv_layers.0.layer_norm.bias",
    f"{WAVEFORM}.norm": "feature_projection.layer_norm",
    f"{WAVEFORM}.projection": reshaped("feature_projection.projection"),
    f"{SOUND}.mask": "masked_spec_embed",
    f"{SOUND}.positions.convolution.gain": (
        f"{POSITION}.parametrizations.weight.original0",
        f"{POSITION}.weight_g",
    ),
    f"{SOUND}.positions.convolution.direction": (
        f"{POSITION}.parametrizations.weight.original1",
        f"{POSITION}.weight_v",
    ),
    f"{SOUND}.positions.convolution.bias": f"{POSITION}.bias",
    f"{SOUND}.norm": "encoder.layer_norm",
    "encoder.last_norm": "encoder.layer_norm",
    **block_rules(
        "encoder.blocks.{i}",
        "encoder.layers.{i}",
        qkv=qkv("attention.{}_proj"),
        attention_output="attention.out_proj",
        attention_norm="layer_norm",
        inner="feed_forward.intermediate_dense",
        outer="feed_forward.output_dense",
        feed_forward_norm="final_layer_norm",
    ),
}


def family(model_type: str, name: str, prefix: str) -> Family:
    """A family whose architectures begin with `name`, and its tensors with `prefix`."""
    return Family(
        model_type=model_type,
        prefix=prefix,
        fields={
            "width": "hidden_size",
            **prefixed(
                "streams.sound",
                kernels=Field("conv_kernel", list, list),
                strides=Field("conv_stride", list, list),
                convolution_norm="feat_extract_norm",
                convolution_bias="conv_bias",
                position_kernel="num_conv_pos_embeddings",
                position_groups="num_conv_pos_embedding_groups",
            ),
            **prefixed(
                "encoder",
                layers="num_hidden_layers",
                heads="num_attention_heads",
                feed_forward="intermediate_size",
                activation=activation("hidden_act"),
                dropout="hidden_dropout",
                attention_dropout="attention_dropout",
                activation_dropout="activation_dropout",
            ),
        },
        rules=RULES,
        heads={
            f"{name}Model": Head(unused=("lm_head.", *PRETRAINING)),
            f"{name}ForCTC": Head(
                targets={"ctc": {}},
                rules={"targets.ctc.classifier": "lm_head"},
                fields={"targets.ctc.characters": CHARACTERS},
                unused=PRETRAINING,
            ),
            f"{name}ForSequenceClassification": Head.classification(
                pooler="projector",
                options={"pooling": "mean", "activation": "none"},
                fields={"targets.classification.hidden_size": "classifier_proj_size"},
                unused=PRETRAINING,
            ),
        },
        constants={
            "streams.sound.embedding": ["waveform", "convolution"],
            "encoder.norm_epsilon": 1e-5,
        },
        required={
            "feat_extract_activation": "gelu",
            "layer_norm_eps": 1e-5,
            "pad_token_id": 0,  # The blank of CTC comes first.
            "use_weighted_layer_sum": False,
            # Only wav2vec 2.0 has these two.
            "add_adapter": False,
            "adapter_attn_dim": None,
            # Only HuBERT has these two.
            "feat_proj_layer_norm": True,
            "conv_pos_batch_norm": False,
        },
        read_options=_read_options,
        write_options=_write_options,
        spans=({"modality": "sound"},),
        processor_files=(
            FEATURES_FILE,
            ProcessorFile(_read_characters, _write_characters),
        ),
    )


WAV2VEC2 = family("wav2vec2", "Wav2Vec2", "wav2vec2.")
HUBERT = family("hubert", "Hubert", "hubert.")
WAV2VEC2.register()
HUBERT.register()

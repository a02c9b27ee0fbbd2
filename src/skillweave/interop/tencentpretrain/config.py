"""TencentPretrain's configurations, as its paper (section 4, Table 1) and its repository have them,
as ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from skillweave.config.base import ConfigError, choose, members_of, nearest
from skillweave.config.encoder import EncoderConfig
from skillweave.config.layering import load_yaml, merge
from skillweave.model.formats import FORMATS, ConfigFormat
from skillweave.model.presets import presets

Settings = dict[str, Any]
WHERE = "TencentPretrain's configuration"

PRESETS = {
    "word pos seg | transformer | mlm sp": "bert-base",
    "word pos seg | transformer | mlm": "bert-base",
    "word pos | transformer | lm": "gpt2",
    "word | transformer | word | transformer | lm": "t5-small",
    "word | bilstm | bilm": "elmo",
    "word | gru | cls": "infersent",
    "word | lstm | word | lstm | lm": "cove",
    "word | gatedcnn | lm": "gated-cnn-9",
    "patch pos | transformer | cls": "vit-base",
    "patch pos | transformer | mlm": "beit-base",
    "speech pos | transformer | word pos | transformer | lm": "s2t-small",
    "word_patch pos seg | transformer | cls mlm": "vilt-base",
    "word pos | transformer | patch pos | transformer | clr": "clip-vit-base-32",
}
"""Modules of a configuration without sizes → the preset that has its sizes."""
ALIASES = {
    "patch_word": ["word_patch"],
    "word_pos_seg": ["word", "pos", "seg"],
    "word_pos": ["word", "pos"],
}
"""Names of embeddings in older configurations, and an error of the paper."""
CONTENT = {
    "word": {"text": "word"},
    "patch": {"image": "patch"},
    "masked_patch": {"image": "masked_patch"},
    "word_patch": {"text": "word", "image": "patch"},
    "speech": {"sound": "filterbank"},
}
"""Embedding of inputs → our module for each of its streams; two streams are one sequence (ViLT)."""
ADDED = {
    "text": {"pos": "position", "seg": "segment", "sinusoidalpos": "interleaved_timing"},
    "image": {"pos": "position", "seg": None},
    "sound": {"pos": "position", "sinusoidalpos": "timing"},
}
"""Stream → the other embeddings that it can have → our modules. The segment of images is the same
everywhere, so a part of their positions."""
SINUSOIDAL_OFFSET = 2
"""Number of the first position of sines and cosines."""
ARCHITECTURES = {kind.names()[0]: kind for kind in members_of(EncoderConfig)}
"""Name of each encoder here → its configuration."""
RECURRENT = ("rnn", "lstm", "gru")
ENCODERS: dict[str, Settings] = {
    "transformer": {"name": "transformer"},
    **{name: {"name": name, "direction": "forward"} for name in RECURRENT},
    **{f"bi{name}": {"name": name, "direction": "separate"} for name in RECURRENT},
    "gatedcnn": {"name": "gated_cnn"},
}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_quick": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}
FEED_FORWARDS = {"dense": False, "gated": True}
NORMS = {"normal": "layer", "normal_torch": "layer", "t5": "rms", "rms": "rms"}
FULL, CAUSAL, PREFIX = "full", "causal", "prefix"
MASKS = {"fully_visible": FULL, "causal": CAUSAL, "causal_with_prefix": PREFIX, "prefix": PREFIX}
"""What positions see; `prefix`: all see the first part, and the second part is causal."""
TARGETS: dict[str, tuple[str, Settings]] = {
    "mlm": ("mlm", {}),
    "lm": ("lm", {}),
    "bilm": ("bilm", {}),
    "sp": ("sp", {"kind": "classification", "classes": ["next", "random"]}),
    "cls": ("classification", {}),
    "clr": ("contrastive", {}),
}
"""Target → our name and options."""

ENCODER_OPTIONS = {
    "layers": "layers_num",
    "heads": "heads_num",
    "key_value_heads": "local_kv_heads_num",
    "head_size": "attention_head_size",
    "feed_forward": "feedforward_size",
    "dropout": "dropout",
    "attention_dropout": "dropout",
    "norm_epsilon": "layernorm_eps",
    "norm_position": "layernorm_positioning",
    "residual_attention": "has_residual_attention",
    "kernel_size": "kernel_size",
    "block_layers": "block_size",
}
"""Our option of an encoder or decoder → theirs, with the same values."""
CONVERTED: dict[str, Callable[[Any], Settings]] = {
    "feed_forward": lambda kind: {"gated": choose(FEED_FORWARDS, kind, "feed_forward")},
    "hidden_act": lambda name: {"activation": choose(ACTIVATIONS, name, "hidden_act")},
    "layernorm": lambda name: {"norm": choose(NORMS, name, "layernorm")},
    "remove_attention_scale": lambda on: {"scale_attention": not on},
    "parameter_sharing": lambda on: {"distinct_layers": 1} if on else {},
    "bidirectional": lambda on: {"direction": "bidirectional"} if on else {},
}
"""Option of an encoder or decoder → our options, given its value."""
POSITIONS = {
    "relative_position_embedding": "t5_bias",
    "rotary_position_embedding": "rope",
    "alibi_position_embedding": "alibi",
}
"""Option of an encoder → how attention uses positions."""
ENCODER_ONLY = {
    "parameter_sharing",
    "has_residual_attention",
    "rotary_position_embedding",
    "alibi_position_embedding",
}
"""Options that a decoder ignores."""
OTHER_OPTIONS = {
    *POSITIONS,
    "relative_attention_buckets_num",
    "remove_transformer_bias",
    "embedding",
    "encoder",
    "tgt_embedding",
    "decoder",
    "target",
    "stream_0",
    "stream_1",
    "mask",
    "pooling",
    "labels_num",
    "hidden_size",
    "emb_size",
    "decoder_layers_num",
    "max_seq_length",
    "seq_length",
    "vocab_size",
    "factorized_embedding_parameterization",
    "remove_embedding_layernorm",
    "share_embedding",
    "tie_weights",
    "has_lmtarget_bias",
    "image_height",
    "image_width",
    "patch_size",
    "projection",
    "feature_size",
    "audio_feature_size",
    "conv_channels",
    "conv_kernel_sizes",
    "conv_layers_num",
    "max_audio_frames",
    "image_tokenizer",
}
"""Other options that describe the model."""
REQUIRED = {"channels_num": 3}
"""Options that must have this value."""
IGNORED = {
    "data_processor",
    "tokenizer",
    "image_preprocess",
    "audio_preprocess",
    "specaugment",
    "sampling_rate",
    "label_smoothing",
    "ignore_index",
    "reduce",
    "optimizer",
    "scheduler",
    "layer_number_scale",
    "use_mp",
    "prefix_lm_loss",
}
"""Options that do not affect the function that the model computes."""
DEFAULTS = {
    "layernorm_eps": 1e-6,
    "share_embedding": False,
    "remove_embedding_layernorm": False,
    "image_height": 256,
    "image_width": 256,
    "patch_size": 16,
}
"""TencentPretrain's defaults that differ from ours. They apply to configurations with sizes."""


def is_tencent_config(data: Any) -> bool:
    """Whether the content of a JSON file is a configuration of TencentPretrain."""
    return isinstance(data, Mapping) and bool({"embedding", "stream_0"} & data.keys())


def read_tencent_config(data: Mapping[str, Any]) -> Settings:
    """The settings of a `ModelConfig` for a configuration of TencentPretrain.

    A configuration without sizes, as the paper prints them, gets those of the preset with the same
    modules (`PRESETS`), or else our defaults. One with sizes gets TencentPretrain's own defaults.
    Raises ConfigError for what has no counterpart here.
    """
    sides = [data[name] for name in ("stream_0", "stream_1") if data.get(name) is not None]
    for options in (data, *sides):
        _require_known(options)
    has_sizes = any("hidden_size" in options for options in (data, *sides))
    common = {**DEFAULTS, **data} if has_sizes else dict(data)
    parts = [{**common, **side} for side in sides] or [common]
    model = _model(parts, common)
    preset = None if has_sizes else PRESETS.get(_modules(parts, common))
    if not preset:
        return model
    base = load_yaml(presets()[preset])
    known = base.pop("targets", {})
    base.pop("tasks", None)
    for name, options in model["targets"].items():
        model["targets"][name] = merge(known.get(name) or {}, options)
    return merge(base, model)


def _require_known(options: Mapping[str, Any]) -> None:
    known = {*ENCODER_OPTIONS.values(), *CONVERTED, *OTHER_OPTIONS, *REQUIRED}
    for key, value in options.items():
        if key not in known | IGNORED:
            raise ConfigError(f"{WHERE}: unknown key {key!r}{nearest(key, known)}")
        if value != REQUIRED.get(key, value):
            raise ConfigError(
                f"{WHERE}: {key} {value!r} has no counterpart; it must be {REQUIRED[key]}"
            )


def _names(value: Any) -> list[str]:
    """The modules of a list, or of one name, with the names of newer configurations."""
    given = [value] if isinstance(value, str) else value or []
    return [name for one in given for name in ALIASES.get(one, [one])]


def _modules(parts: list[Settings], common: Settings) -> str:
    """The modules, as in Table 1."""
    modules = []
    for part in parts:
        modules += [_names(part.get("embedding")), [_encoder_name(part)]]
    if common.get("decoder"):
        modules += [_names(common.get("tgt_embedding")), [common["decoder"]]]
    modules.append(sorted(_names(common.get("target"))))
    return " | ".join(" ".join(names) for names in modules)


def _encoder_name(part: Settings) -> str:
    return str(part.get("encoder", "transformer")).replace("-", "")


def _given(part: Settings, options: Mapping[str, str]) -> Settings:
    """The options that are given, with our names. `options`: ours → theirs."""
    return {ours: part[theirs] for ours, theirs in options.items() if part.get(theirs) is not None}


def _model(parts: list[Settings], common: Settings) -> Settings:
    """All settings that the options give. `parts`: the options of each stream."""
    targets = _names(common.get("target")) or (["cls"] if len(parts) > 1 else [])
    model: Settings = {"streams": {}}
    for part in parts:
        _add_streams(model, part, common)
    if common.get("decoder"):
        if wrong := sorted({"mlm", "bilm", "clr"}.intersection(targets)):
            raise ConfigError(f"{WHERE}: target {wrong[0]} reads the encoder here, not the decoder")
        model |= _decoder(common, spoken="sound" in model["streams"])
    model["targets"] = dict(_target(name, parts, common) for name in targets)
    task = {
        "spans": _spans(parts, common, targets),
        "targets": dict.fromkeys(model["targets"], 1.0),
    }
    model["tasks"] = {"_".join(targets) or "encode": task}
    return model


def _add_streams(model: Settings, part: Settings, common: Settings) -> None:
    """Add one part. The encoder of the first part is the one that streams share."""
    encoder = {
        "encoder": _encoder(part, _encoder_name(part)),
        **_given(part, {"width": "hidden_size"}),
    }
    streams = {modality: _stream(part, modality) for modality in _contents(part)}
    for modality in streams.keys() & model["streams"].keys():
        if not _ties_weights(common, part):
            raise ConfigError(f"{WHERE}: two streams of one modality share their weights here")
        first = {**model["streams"][modality], **{key: model[key] for key in encoder}}
        if first != {**streams[modality], **encoder}:
            raise ConfigError(
                f"{WHERE}: stream_0 and stream_1 share their weights, so they must have the same"
                " options"
            )
    if model["streams"]:
        streams = {modality: stream | encoder for modality, stream in streams.items()}
    else:
        model.update(encoder)
    model["streams"] = streams | model["streams"]


def _decoder(common: Settings, spoken: bool) -> Settings:
    """The decoder and its embedding. `spoken`: whether the encoder reads sound."""
    own = {key: value for key, value in common.items() if key not in ENCODER_ONLY}
    own["layers_num"] = common.get("decoder_layers_num", common.get("layers_num"))
    if (own.get("layernorm"), own.get("layernorm_positioning")) == ("rms", "pre"):
        raise ConfigError(
            f"{WHERE}: after the last layer of a decoder, layernorm 'rms' is a layer norm there and"
            " an RMS norm here"
        )
    words = _stream({**common, "embedding": common.get("tgt_embedding", "word")})
    if "share_embedding" in common:
        words["tied"] = common["share_embedding"] and not spoken
    # Whether words are scaled, and how sines and cosines are arranged, depends on the encoder.
    words |= _scale(common)
    if spoken:
        arranged = {ADDED["text"]["sinusoidalpos"]: ADDED["sound"]["sinusoidalpos"]}
        words["embedding"] = [arranged.get(name, name) for name in words["embedding"]]
    return {"decoder": _encoder(own, common["decoder"]), "target_embedding": words}


def _contents(part: Settings) -> dict[str, str]:
    """The streams of a part → the module that embeds their inputs."""
    found = [CONTENT[name] for name in _names(part.get("embedding")) if name in CONTENT]
    if len(found) != 1:
        raise ConfigError(
            f"{WHERE}: embedding {part.get('embedding')} needs one of {', '.join(CONTENT)}"
        )
    return found[0]


def _masks_patches(part: Settings) -> bool:
    """Whether the model predicts masked patches of images (BEiT)."""
    return list(_contents(part)) == ["image"] and "mlm" in _names(part.get("target"))


def _scale(part: Settings) -> Settings:
    """Whether words and frames are multiplied by √size."""
    scaled = "sinusoidalpos" in _names(part.get("embedding"))
    return {"scale_embedding": scaled} if scaled or "hidden_size" in part else {}


def _stream(part: Settings, modality: str = "text") -> Settings:
    """The stream of a modality."""
    content = "masked_patch" if _masks_patches(part) else _contents(part)[modality]
    names = [name for name in _names(part.get("embedding")) if name not in CONTENT]
    modules = [choose(ADDED[modality], name, "embedding") for name in names]
    stream: Settings = {"embedding": [content, *filter(None, modules)]}
    if "sinusoidalpos" in names:
        stream["position_offset"] = SINUSOIDAL_OFFSET
        if "pos" in names:
            raise ConfigError(
                f"{WHERE}: embedding has both pos and sinusoidalpos; give one of them"
            )
    if "remove_embedding_layernorm" in part:
        stream["norm"] = not part["remove_embedding_layernorm"]
        if stream["norm"] and NORMS.get(part.get("layernorm", "normal")) != "layer":
            raise ConfigError(
                f"{WHERE}: with layernorm {part['layernorm']!r} the embedding has a layer norm"
                " there and an RMS norm here; it must have remove_embedding_layernorm"
            )
    describe = {"text": _text, "image": _image, "sound": _sound}
    return stream | describe[modality](part)


def _text(part: Settings) -> Settings:
    joint = "word_patch" in _names(part.get("embedding")) and "seq_length" in part
    length = "seq_length" if joint else "max_seq_length"
    found = _given(part, {"max_length": length, "vocabulary": "vocab_size"})
    if part.get("factorized_embedding_parameterization"):
        found |= _given(part, {"embedding_size": "emb_size"})
    return found | _scale(part)


def _image(part: Settings) -> Settings:
    if part.get("image_height") != part.get("image_width"):
        raise ConfigError(f"{WHERE}: image_height and image_width differ; images are square here")
    found = _given(part, {"size": "image_height", "patch": "patch_size"})
    return found | ({"patch_bias": False} if "hidden_size" in part else {})


def _sound(part: Settings) -> Settings:
    """Log-mel frames; each convolution halves their number."""
    found = {"mask_vector": False, **_scale(part)}
    found |= _given(part, {"mel_bins": "audio_feature_size", "kernels": "conv_kernel_sizes"})
    if channels := part.get("conv_channels"):
        first, *others = [channels] if isinstance(channels, int) else channels
        expected = [*[first] * (len(others) - 1), 2 * part.get("emb_size", 0)]
        if others and others != expected:
            raise ConfigError(
                f"{WHERE}: conv_channels {channels} must be {[first, *expected]}: the first number"
                " for all convolutions but the last, which has two for each number of emb_size"
            )
        found["channels"] = first
    if layers := part.get("conv_layers_num", len(part.get("conv_kernel_sizes", ()))):
        found["strides"] = [2] * layers
        if "max_audio_frames" in part:
            found["max_length"] = -(-part["max_audio_frames"] // 2**layers)
    return found


def _encoder(part: Settings, name: str) -> Settings:
    """An encoder or decoder."""
    settings = choose(ENCODERS, name, "encoder")
    options = _position(part) | _given(part, ENCODER_OPTIONS)
    for key, convert in CONVERTED.items():
        if part.get(key) is not None:
            options |= convert(part[key])
    if part.get("remove_transformer_bias"):
        options["biases"] = [] if options.get("norm") == "rms" else ["norm"]
    if settings["name"] != "transformer":
        options |= _given(part, {"input_size": "emb_size"})
    # TencentPretrain's encoders ignore the options of others.
    known = ARCHITECTURES[settings["name"]].model_fields
    return settings | {key: value for key, value in options.items() if key in known}


def _position(part: Settings) -> Settings:
    """How attention uses positions."""
    chosen = [option for option in POSITIONS if part.get(option)]
    if len(chosen) > 1:
        raise ConfigError(f"{WHERE}: {' and '.join(chosen)} exclude each other; give one of them")
    position: Settings = {"kind": POSITIONS[chosen[0]]} if chosen else {}
    if part.get("relative_position_embedding", "hidden_size" not in part):
        position |= _given(part, {"buckets": "relative_attention_buckets_num"})
    return {"position": position} if position else {}


def _target(name: str, parts: list[Settings], common: Settings) -> tuple[str, Settings]:
    """A target's name and options."""
    if name == "mlm" and _masks_patches(parts[0]):
        tokenizer = common.get("image_tokenizer", {})
        options = _given(tokenizer, {"vocabulary": "image_vocab_size"})
        return "masked_image_token", options | _activation(parts[0])
    ours, fixed = choose(TARGETS, name, "target")
    return ours, fixed | _target_options(name, parts, common)


def _activation(part: Settings) -> Settings:
    act = part.get("hidden_act")
    return {} if act is None else {"activation": choose(ACTIVATIONS, act, "hidden_act")}


def _ties_weights(common: Settings, part: Settings) -> bool:
    """Whether weights are tied. A configuration without sizes leaves it open, and here they are."""
    return common.get("tie_weights", "hidden_size" not in part)


def _target_options(name: str, parts: list[Settings], common: Settings) -> Settings:
    if name == "mlm":
        return _activation(parts[0]) | _given(common, {"tied": "tie_weights"})
    if name == "sp" and len(_contents(parts[0])) > 1:  # of a text and a picture, 1 is a match
        return {"classes": ["random", "matching"]}
    if name == "bilm":
        return _given(common, {"bias": "has_lmtarget_bias"})
    if name == "lm":
        tied = {} if _ties_weights(common, parts[0]) else {"tied": False}
        return tied | _given(common, {"tied": "tie_weights", "bias": "has_lmtarget_bias"})
    if name == "cls":
        found = _given(common, {"pooling": "pooling"})
        found["compared"] = ["first", "second", "difference"] if len(parts) > 1 else []
        if "labels_num" in common:
            found["classes"] = [str(number) for number in range(common["labels_num"])]
        return found
    if name == "clr":
        pooling = {}
        for part in parts:
            pooling |= dict.fromkeys(_contents(part), part.get("pooling", "first"))
        size = _given(common, {"projection": "feature_size"}) if common.get("projection") else {}
        return {"pooling": pooling, **size}
    return {}


def _mask(part: Settings, default: str = "fully_visible") -> str:
    return choose(MASKS, part.get("mask", default), "mask")


def _spans(parts: list[Settings], common: Settings, targets: list[str]) -> list[Settings]:
    """What the model reads. Without a decoder, a language model is causal."""
    spans: list[Settings] = []
    for i, part in enumerate(parts):
        attention = CAUSAL if _mask(part) == CAUSAL else FULL
        for modality in _contents(part):
            spans.append({"modality": modality, "encoder_pass": i, "attention": attention})
    written = {"role": "target", "attention": "causal"}
    if common.get("decoder"):
        return [*spans, {"modality": "text", "encoder_pass": 1, **written}]
    mask = _mask(common, "causal" if "lm" in targets else "fully_visible")
    if "lm" in targets and mask == CAUSAL:
        return [{**spans[0], "attention": CAUSAL}]
    if mask == PREFIX and len(parts) == 1 and spans[0]["modality"] == "text":
        if "cls" in targets and common.get("pooling", "first") != "first":
            raise ConfigError(
                f"{WHERE}: pooling {common['pooling']!r} multiplies the vectors behind a prefix by"
                " 2 there; it must be first"
            )
        return [spans[0], {**spans[-1], **written}]
    return [*spans, spans[0]] if "sp" in targets and len(spans) == 1 else spans


FORMATS.register("tencentpretrain")(ConfigFormat(is_tencent_config, read_tencent_config))

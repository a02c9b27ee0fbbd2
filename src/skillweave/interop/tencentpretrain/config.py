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
ADDED = {"pos": "position", "seg": "segment", "sinusoidalpos": "sinusoidal"}
"""Other embeddings → our modules."""
ADDED_TO = {
    "text": ("pos", "seg", "sinusoidalpos"),
    "image": ("pos",),
    "sound": ("pos", "sinusoidalpos"),
}
"""Stream → the other embeddings that it can have. Images need no segment: they have positions of
their own."""
SEQUENTIAL = {kind.names()[0]: kind for kind in members_of(EncoderConfig)[1:]}
"""Name of each encoder other than the Transformer → its configuration."""
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
NORMS = {"normal": "layer", "normal_torch": "layer", "t5": "rms", "rms": "rms"}
TARGETS: dict[str, tuple[str, Settings]] = {
    "mlm": ("mlm", {}),
    "lm": ("lm", {}),
    "bilm": ("bilm", {}),
    "sp": ("sp", {"kind": "classification", "classes": ["next", "random"]}),
    "cls": ("classification", {}),
    "clr": ("contrastive", {}),
}
"""Target → our name and options."""


def _position(kind: str) -> Callable[[Any], Settings]:
    return lambda on: {"position": {"kind": kind}} if on else {}


ENCODER_OPTIONS: dict[str, Callable[[Any], Settings]] = {
    "layers_num": lambda n: {"layers": n},
    "heads_num": lambda n: {"heads": n},
    "local_kv_heads_num": lambda n: {"key_value_heads": n},
    "attention_head_size": lambda n: {"head_size": n},
    "feedforward_size": lambda n: {"feed_forward": n},
    "feed_forward": lambda kind: {"gated": kind == "gated"},
    "hidden_act": lambda name: {"activation": choose(ACTIVATIONS, name, "hidden_act")},
    "dropout": lambda rate: {"dropout": rate, "attention_dropout": rate},
    "layernorm": lambda name: {"norm": choose(NORMS, name, "layernorm")},
    "layernorm_eps": lambda epsilon: {"norm_epsilon": epsilon},
    "layernorm_positioning": lambda position: {"norm_position": position},
    "remove_attention_scale": lambda on: {"scale_attention": not on},
    "remove_transformer_bias": lambda on: {"biases": ["norm"]} if on else {},
    "parameter_sharing": lambda on: {"distinct_layers": 1} if on else {},
    "relative_position_embedding": _position("t5_bias"),
    "rotary_position_embedding": _position("rope"),
    "alibi_position_embedding": _position("alibi"),
    "relative_attention_buckets_num": lambda n: {"position": {"buckets": n}},
    "bidirectional": lambda on: {"direction": "bidirectional"} if on else {},
    "kernel_size": lambda n: {"kernel_size": n},
    "block_size": lambda n: {"block_layers": n},
}
"""Option of an encoder or decoder → our options, given its value."""
REQUIRES = {"relative_attention_buckets_num": "relative_position_embedding"}
"""Option → the option without which it has no effect."""
OTHER_OPTIONS = {
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
REQUIRED = {"has_residual_attention": False, "channels_num": 3}
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
    "tie_weights": False,
    "share_embedding": False,
    "remove_embedding_layernorm": False,
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
    known = {*ENCODER_OPTIONS, *OTHER_OPTIONS, *REQUIRED}
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
    targets = _names(common.get("target"))
    model: Settings = {"streams": {}}
    for part in parts:
        _add_streams(model, part, common)
    if common.get("decoder"):
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
    if streams.keys() & model["streams"].keys() and not common.get("tie_weights", True):
        raise ConfigError(f"{WHERE}: two streams of one modality share their weights here")
    if model["streams"]:
        streams = {modality: stream | encoder for modality, stream in streams.items()}
    else:
        model.update(encoder)
    model["streams"] = streams | model["streams"]


def _decoder(common: Settings, spoken: bool) -> Settings:
    """The decoder and its embedding. `spoken`: whether the encoder reads sound."""
    layers = common.get("decoder_layers_num", common.get("layers_num"))
    words = _stream({**common, "embedding": common.get("tgt_embedding", "word")})
    if "share_embedding" in common:
        words["tied"] = common["share_embedding"] and not spoken
    if _is_scaled(common):
        words["scale_embedding"] = True
    return {
        "decoder": _encoder({**common, "layers_num": layers}, common["decoder"]),
        "target_embedding": words,
    }


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


def _is_scaled(part: Settings) -> bool:
    """Whether word embeddings are multiplied by √size."""
    return "sinusoidalpos" in _names(part.get("embedding"))


def _stream(part: Settings, modality: str = "text") -> Settings:
    """The stream of a modality."""
    content = "masked_patch" if _masks_patches(part) else _contents(part)[modality]
    stream: Settings = {"embedding": [content]}
    for name in _names(part.get("embedding")):
        if name not in CONTENT:
            module = choose(ADDED, name, "embedding")
            stream["embedding"] += [module] if name in ADDED_TO[modality] else []
    if "remove_embedding_layernorm" in part:
        stream["norm"] = not part["remove_embedding_layernorm"]
    describe = {"text": _text, "image": _image, "sound": _sound}
    return stream | describe[modality](part)


def _text(part: Settings) -> Settings:
    found = _given(part, {"max_length": "max_seq_length", "vocabulary": "vocab_size"})
    if part.get("factorized_embedding_parameterization"):
        found |= _given(part, {"embedding_size": "emb_size"})
    return found | ({"scale_embedding": True} if _is_scaled(part) else {})


def _image(part: Settings) -> Settings:
    if part.get("image_height") != part.get("image_width"):
        raise ConfigError(f"{WHERE}: image_height and image_width differ; images are square here")
    found = _given(part, {"size": "image_height", "patch": "patch_size"})
    return found | ({"patch_bias": False} if "hidden_size" in part else {})


def _sound(part: Settings) -> Settings:
    """Log-mel frames; each convolution halves their number."""
    options = {
        "mel_bins": "audio_feature_size",
        "channels": "conv_channels",
        "kernels": "conv_kernel_sizes",
    }
    found = {"mask_vector": False, **_given(part, options)}
    if layers := part.get("conv_layers_num"):
        found["strides"] = [2] * layers
        if "max_audio_frames" in part:
            found["max_length"] = -(-part["max_audio_frames"] // 2**layers)
    return found


def _encoder(part: Settings, name: str) -> Settings:
    """An encoder or decoder."""
    settings = choose(ENCODERS, name, "encoder")
    options: Settings = {}
    for key, convert in ENCODER_OPTIONS.items():
        has_effect = key not in REQUIRES or part.get(REQUIRES[key], True)
        if part.get(key) is not None and has_effect:
            options = merge(options, convert(part[key]))
    if architecture := SEQUENTIAL.get(settings["name"]):
        # TencentPretrain's other encoders ignore the options of the Transformer.
        options |= _given(part, {"input_size": "emb_size"})
        known = architecture.model_fields
        options = {key: value for key, value in options.items() if key in known}
    return settings | options


def _target(name: str, parts: list[Settings], common: Settings) -> tuple[str, Settings]:
    """A target's name and options."""
    if name == "mlm" and _masks_patches(parts[0]):
        tokenizer = common.get("image_tokenizer", {})
        return "masked_image_token", _given(tokenizer, {"vocabulary": "image_vocab_size"})
    ours, fixed = choose(TARGETS, name, "target")
    return ours, fixed | _target_options(name, parts, common)


def _target_options(name: str, parts: list[Settings], common: Settings) -> Settings:
    if name == "mlm" and "hidden_act" in parts[0]:
        return {"activation": choose(ACTIVATIONS, parts[0]["hidden_act"], "hidden_act")}
    if name == "lm":
        return _given(common, {"tied": "tie_weights", "bias": "has_lmtarget_bias"})
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


def _spans(parts: list[Settings], common: Settings, targets: list[str]) -> list[Settings]:
    """What the model reads. Without a decoder, a language model is causal."""
    spans: list[Settings] = []
    for i, part in enumerate(parts):
        attention = "causal" if part.get("mask") == "causal" else "full"
        for modality in _contents(part):
            spans.append({"modality": modality, "encoder_pass": i, "attention": attention})
    written = {"role": "target", "attention": "causal"}
    if common.get("decoder"):
        return [*spans, {"modality": "text", "encoder_pass": 1, **written}]
    if "lm" in targets and common.get("mask", "causal") == "causal":
        return [{**spans[0], "attention": "causal"}]
    if common.get("mask") == "causal_with_prefix":
        return [spans[0], {**spans[0], **written}]
    return [*spans, spans[0]] if "sp" in targets and len(spans) == 1 else spans


FORMATS.register("tencentpretrain")(ConfigFormat(is_tencent_config, read_tencent_config))

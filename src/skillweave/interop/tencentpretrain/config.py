"""TencentPretrain's configurations, as its paper prints them (section 4, Table 1) and as its
repository has them, as ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from skillweave.config.base import ConfigError, choose, members_of, nearest
from skillweave.config.encoder import EncoderConfig
from skillweave.config.layering import load_yaml, merge
from skillweave.model.formats import FORMATS, ConfigFormat
from skillweave.model.presets import presets

Mapped = dict[str, Any]

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
"""Modules of a configuration that gives no sizes → whose sizes it has."""

EMBEDDINGS = {"pos": "position", "seg": "segment", "sinusoidalpos": "sinusoidal"}
ALIASES = {
    "patch_word": ["word_patch"],
    "word_pos_seg": ["word", "pos", "seg"],
    "word_pos": ["word", "pos"],
}
"""Names of modules in older configurations, and a slip of the paper."""
CONTENT = {
    "word": {"text": "word"},
    "patch": {"image": "patch"},
    "masked_patch": {"image": "masked_patch"},
    "word_patch": {"text": "word", "image": "patch"},
    "speech": {"sound": "filterbank"},
}
"""Module that makes vectors of data → the streams it belongs to, with its name there; two are one
sequence (ViLT)."""
PLACED = {
    "text": ("pos", "seg", "sinusoidalpos"),
    "image": ("pos",),
    "sound": ("pos", "sinusoidalpos"),
}
"""What else a stream's embedding may have. Positions of pictures are their own, which tells them
from words as segments do."""
BUCKETS = ("relative_attention_buckets_num",)
"""Options that only relative positions have."""
SEQUENTIAL = {kind.names()[0]: kind for kind in members_of(EncoderConfig)[1:]}
RECURRENT = ("rnn", "lstm", "gru")
ENCODERS: dict[str, Mapped] = {
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
TARGETS: dict[str, tuple[str, Mapped]] = {
    "mlm": ("mlm", {}),
    "lm": ("lm", {}),
    "bilm": ("bilm", {}),
    "sp": ("sp", {"kind": "classification", "classes": ["next", "random"]}),
    "cls": ("classification", {}),
    "clr": ("contrastive", {}),
}
"""Their targets → our names, and what they are."""
OF_PATCHES = {"mlm": ("masked_image_token", {})}
"""The same of a model of pictures alone (BEiT)."""


def _where(kind: str) -> Callable[[Any], Mapped]:
    return lambda on: {"position": {"kind": kind}} if on else {}


BLOCKS: dict[str, Callable[[Any], Mapped]] = {
    "layers_num": lambda n: {"layers": n},
    "heads_num": lambda n: {"heads": n},
    "local_kv_heads_num": lambda n: {"key_value_heads": n},
    "attention_head_size": lambda n: {"head_size": n},
    "feedforward_size": lambda n: {"feed_forward": n},
    "feed_forward": lambda kind: {"gated": kind == "gated"},
    "hidden_act": lambda name: {"activation": choose(ACTIVATIONS, name, "hidden_act")},
    "dropout": lambda share: {"dropout": share, "attention_dropout": share},
    "layernorm": lambda name: {"norm": choose(NORMS, name, "layernorm")},
    "layernorm_eps": lambda epsilon: {"norm_epsilon": epsilon},
    "layernorm_positioning": lambda where: {"norm_position": where},
    "remove_attention_scale": lambda on: {"scale_attention": not on},
    "remove_transformer_bias": lambda on: {"biases": ["norm"]} if on else {},
    "parameter_sharing": lambda on: {"distinct_layers": 1} if on else {},
    "relative_position_embedding": _where("t5_bias"),
    "rotary_position_embedding": _where("rope"),
    "alibi_position_embedding": _where("alibi"),
    "relative_attention_buckets_num": lambda n: {"position": {"buckets": n}},
    "bidirectional": lambda on: {"direction": "bidirectional"} if on else {},
    "kernel_size": lambda n: {"kernel_size": n},
    "block_size": lambda n: {"block_layers": n},
}
"""Their options of encoder and decoder → ours."""
PARTS = {
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
"""Their other options that say something of the model."""
FIXED = {"has_residual_attention": False, "channels_num": 3}
"""Options that must have this value."""
ASIDE = {
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
"""Options that say nothing of the function that the model computes."""
DEFAULTS = {
    "layernorm_eps": 1e-6,
    "tie_weights": False,
    "share_embedding": False,
    "remove_embedding_layernorm": False,
}
"""What holds there where a configuration with sizes says nothing, and is otherwise here."""


def is_tencent(data: Any) -> bool:
    """Whether a JSON file is a configuration of TencentPretrain's."""
    return isinstance(data, Mapping) and bool({"embedding", "stream_0"} & data.keys())


def from_tencent(data: Mapping[str, Any]) -> Mapped:
    """Our model's configuration, as a mapping, of one of TencentPretrain's.

    One without sizes, as the paper prints them, has those of the preset of the same modules
    (`PRESETS`), and otherwise the defaults; one with sizes has TencentPretrain's own defaults.
    Raises ConfigError for what has no counterpart here.
    """
    sides = [side for name in ("stream_0", "stream_1") if (side := data.get(name)) is not None]
    given = {key: value for part in (data, *sides) for key, value in part.items()}
    _require_known(given)
    sized = "hidden_size" in given
    common = {**(DEFAULTS if sized else {}), **data}
    parts = [{**common, **side} for side in sides] or [common]
    preset = None if sized else PRESETS.get(_signature(parts, data))
    base = _preset(preset) if preset else {}
    found = _model(parts, common)
    known, targets = base.pop("targets", {}), found["targets"]
    base.pop("tasks", None)
    return merge(
        base,
        found
        | {"targets": {name: merge(known.get(name) or {}, spec) for name, spec in targets.items()}},
    )


def _require_known(given: Mapping[str, Any]) -> None:
    known = {*BLOCKS, *PARTS, *FIXED}
    for key, value in given.items():
        if key not in known | ASIDE:
            raise ConfigError(
                f"TencentPretrain's configuration: unknown key {key!r}{nearest(key, known)}"
            )
        if value != FIXED.get(key, value):
            raise ConfigError(
                f"TencentPretrain's configuration: {key} {value!r} has no counterpart; it must be"
                f" {FIXED[key]}"
            )


def _preset(name: str) -> Mapped:
    return load_yaml(presets()[name])


def _names(value: Any) -> list[str]:
    """A list of modules, or one, under the names of today."""
    return [
        name
        for given in ([value] if isinstance(value, str) else value or [])
        for name in ALIASES.get(given, [given])
    ]


def _signature(parts: list[Mapped], data: Mapping[str, Any]) -> str:
    """The modules, as in Table 1."""
    modules = [
        module
        for part in parts
        for module in (_names(part.get("embedding")), [_encoder_name(part)])
    ]
    if data.get("decoder"):
        modules += [_names(data.get("tgt_embedding")), [data["decoder"]]]
    return " | ".join(" ".join(names) for names in (*modules, sorted(_names(data.get("target")))))


def _encoder_name(part: Mapped) -> str:
    return str(part.get("encoder", "transformer")).replace("-", "")


def _model(parts: list[Mapped], common: Mapped) -> Mapped:
    """All of the configuration that its keys say: the first stream's encoder is the one that
    streams share."""
    model: Mapped = {"streams": {}}
    for part in parts:
        own = {"encoder": _blocks(part, _encoder_name(part))}
        own |= {"width": part["hidden_size"]} if "hidden_size" in part else {}
        streams = {modality: _stream(part, modality) for modality in _contents(part)}
        if streams.keys() & model["streams"].keys() and not common.get("tie_weights", True):
            raise ConfigError(
                "TencentPretrain's configuration: two streams of one modality share their weights"
                " here"
            )
        if model["streams"]:
            streams = {modality: stream | own for modality, stream in streams.items()}
        else:
            model |= own
        model["streams"] = streams | model["streams"]
    if common.get("decoder"):
        blocks = _blocks(
            {**common, "layers_num": common.get("decoder_layers_num", common.get("layers_num"))},
            common["decoder"],
        )
        model["decoder"] = blocks
        spoken = "sound" in model["streams"]
        tied = (
            {"tied": common["share_embedding"] and not spoken}
            if "share_embedding" in common
            else {}
        )
        words = _stream({**common, "embedding": common.get("tgt_embedding", "word")}) | tied
        model["target_embedding"] = words | ({"scale_embedding": True} if _scaled(common) else {})
    wanted = _names(common.get("target"))
    model["targets"] = dict(_target(name, parts, common) for name in wanted)
    task = {"spans": _spans(parts, common, wanted), "targets": dict.fromkeys(model["targets"], 1.0)}
    model["tasks"] = {"_".join(wanted) or "encode": task}
    return model


def _contents(part: Mapped) -> dict[str, str]:
    """The streams of an embedding → the module that makes their vectors."""
    found = [CONTENT[name] for name in _names(part.get("embedding")) if name in CONTENT]
    if len(found) != 1:
        raise ConfigError(
            f"TencentPretrain's configuration: embedding {part.get('embedding')} needs one of"
            f" {', '.join(CONTENT)}"
        )
    return found[0]


def _hides_patches(part: Mapped) -> bool:
    """Whether it predicts what is masked of pictures alone."""
    return list(_contents(part)) == ["image"] and "mlm" in _names(part.get("target"))


def _scaled(part: Mapped) -> bool:
    """Whether words are multiplied by √size, which is where the encoder's positions are
    computed."""
    return "sinusoidalpos" in _names(part.get("embedding"))


def _stream(part: Mapped, modality: str = "text") -> Mapped:
    """An embedding of a modality."""
    given = [name for name in _names(part.get("embedding")) if name not in CONTENT]
    places = [choose(EMBEDDINGS, name, "embedding") for name in given]
    kept = [ours for name, ours in zip(given, places, strict=True) if name in PLACED[modality]]
    stream: Mapped = {
        "embedding": ["masked_patch" if _hides_patches(part) else _contents(part)[modality], *kept]
    }
    if "remove_embedding_layernorm" in part:
        stream["norm"] = not part["remove_embedding_layernorm"]
    if modality == "sound":
        return stream | _sound(part)
    if modality == "image":
        if part.get("image_height") != part.get("image_width"):
            raise ConfigError(
                "TencentPretrain's configuration: image_height and image_width differ; pictures are"
                " square here"
            )
        sizes = {"size": part.get("image_height"), "patch": part.get("patch_size")}
        plain = {"patch_bias": False} if "hidden_size" in part else {}
        return stream | {name: size for name, size in sizes.items() if size} | plain
    size = part.get("emb_size") if part.get("factorized_embedding_parameterization") else None
    sizes = {
        "max_length": part.get("max_seq_length"),
        "vocabulary": part.get("vocab_size"),
        "embedding_size": size,
        "scale_embedding": _scaled(part),
    }
    return stream | {name: size for name, size in sizes.items() if size}


def _sound(part: Mapped) -> Mapped:
    """Log-mel frames, of which each convolution keeps every other one."""
    given = {
        "mel_bins": "audio_feature_size",
        "channels": "conv_channels",
        "kernels": "conv_kernel_sizes",
    }
    sizes: Mapped = {ours: part[theirs] for ours, theirs in given.items() if theirs in part}
    if layers := part.get("conv_layers_num"):
        sizes["strides"] = [2] * layers
        sizes |= (
            {"max_length": -(-part["max_audio_frames"] // 2**layers)}
            if "max_audio_frames" in part
            else {}
        )
    return {"mask_vector": False} | sizes


def _blocks(part: Mapped, name: str) -> Mapped:
    """An encoder or decoder."""
    kind = choose(ENCODERS, name, "encoder")
    blocks: Mapped = {}
    unused = () if part.get("relative_position_embedding", True) else BUCKETS
    for key, convert in BLOCKS.items():
        if part.get(key) is not None and key not in unused:
            blocks = merge(blocks, convert(part[key]))
    if config := SEQUENTIAL.get(kind["name"]):  # the Transformer's options have no effect there
        if "emb_size" in part:
            blocks["input_size"] = part["emb_size"]
        blocks = {key: value for key, value in blocks.items() if key in config.model_fields}
    return kind | blocks


def _target(name: str, parts: list[Mapped], common: Mapped) -> tuple[str, Mapped]:
    """A target's name and its options."""
    ours, fixed = (
        OF_PATCHES[name]
        if name in OF_PATCHES and _hides_patches(parts[0])
        else choose(TARGETS, name, "target")
    )
    options = dict(fixed)
    if ours == "masked_image_token" and "image_tokenizer" in common:
        options["vocabulary"] = common["image_tokenizer"]["image_vocab_size"]
    if ours == "mlm" and "hidden_act" in parts[0]:
        options["activation"] = choose(ACTIVATIONS, parts[0]["hidden_act"], "hidden_act")
    if name == "lm":
        options |= {
            ours: common[key]
            for key, ours in (("tie_weights", "tied"), ("has_lmtarget_bias", "bias"))
            if key in common
        }
    if name == "cls":
        options["compared"] = ["first", "second", "difference"] if len(parts) > 1 else []
        options |= {"pooling": common["pooling"]} if "pooling" in common else {}
        options |= (
            {"classes": [str(i) for i in range(common["labels_num"])]}
            if "labels_num" in common
            else {}
        )
    if name == "clr":
        options["pooling"] = {
            modality: part.get("pooling", "first") for part in parts for modality in _contents(part)
        }
        if common.get("projection") and "feature_size" in common:
            options["projection"] = common["feature_size"]
    return ours, options


def _spans(parts: list[Mapped], common: Mapped, targets: list[str]) -> list[Mapped]:
    """What the model reads. A model that predicts next words, and has no decoder, sees what stands
    before."""
    spans = [
        {
            "modality": modality,
            "encoder_pass": i,
            "attention": "causal" if part.get("mask") == "causal" else "full",
        }
        for i, part in enumerate(parts)
        for modality in _contents(part)
    ]
    if common.get("decoder"):
        return [
            *spans,
            {"modality": "text", "role": "target", "attention": "causal", "encoder_pass": 1},
        ]
    if "lm" in targets and common.get("mask", "causal") == "causal":
        return [{**spans[0], "attention": "causal"}]
    if common.get("mask") == "causal_with_prefix":
        return [spans[0], {**spans[0], "role": "target", "attention": "causal"}]
    return [*spans, spans[0]] if "sp" in targets and len(spans) == 1 else spans


FORMATS["tencentpretrain"] = ConfigFormat(is_tencent, from_tencent)

"""Checkpoints of TencentPretrain and of UER, its predecessor.

The rules name weights as the configurations have them that
`skillweave.interop.tencentpretrain.config` makes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.config.encoder import EncoderConfig, TransformerConfig
from skillweave.config.errors import reading
from skillweave.interop.checkpoints import load_pickle, without_wrappers
from skillweave.interop.key_map import KeyMap
from skillweave.interop.model_loader import match_weights
from skillweave.interop.rules import (
    Rules,
    block_rules,
    cross_attention_rules,
    joined,
    reshaped,
    transposed,
)
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.model.parts import STREAM, part_configs
from skillweave.weights.files import WeightsError

RENAMED = (
    # Parallel and compiled modules.
    (r"^(module\.|_orig_mod\.)+", ""),
    # Norms.
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    # A block that all layers share.
    (r"(?<=\.transformer\.)(?=\D)", "0."),
    # Older versions.
    (r"^target\.decoder\.", "decoder."),
    (r"^target\.embedding\.", "tgt_embedding."),
    (r"embedding\.(word|position|segment)_embedding\.", r"embedding.\1.embedding."),
    (r"\.position\.", ".pos."),
    (r"\.segment\.", ".seg."),
    (r"^embedding\.(?=(embedding|stream)_\d)", "embedding.dual."),
    (r"^target\.mlm_linear_", "target.mlm.linear_"),
    (r"^target\.layer_norm\.", "target.mlm.layer_norm."),
    (r"^target\.(nsp|sop|sp)_linear_", "target.sp.linear_"),
    (r"^target\.output_layer\.", "target.lm.output_layer."),
    # Fine-tuned classifiers, of one text or of two.
    (r"^output_layer_", "target.cls.linear_"),
    (r"^classifier\.", "target.cls.linear_2."),
    # Patches, alone or behind words.
    (r"\.masked_patch\.", ".patch."),
    (r"\.word_patch\.language_embedding\.", ".word."),
    (r"\.word_patch\.vision_embedding\.", ".image.patch."),
    # The second norm of each of two streams.
    (r"\.dual\.stream_(\d)_layer_norm\.", r".dual.embedding_\1.second_norm."),
)
"""Names in checkpoints → names in the rules."""
WORDS = "embedding.word.embedding.weight"
TABLE = ".relative_pos_emb.relative_attention_bias.weight"
LAYER_TABLE = re.compile(r"(.*)\.transformer\.\d+" + re.escape(TABLE))
"""Relative positions of the encoder, and of each of its layers."""
CONVOLUTION = re.compile(r"(.*\.(?:conv|gate))(_1|\.\d+)\.weight")
"""The first layer of a gated CNN, and the others, which are counted from 0."""
OUTPUTS = {"mlm": "target.mlm.linear_2.weight", "lm": "target.lm.output_layer.weight"}
"""Target → the weight of its output layer."""
DUAL = "embedding.dual.embedding_"
SECOND = re.compile(r"^(embedding\.dual\.embedding_|encoder\.encoder_|target\.clr\.encoder_)1")
"""Matches the weights of the second of two streams."""


def from_tencent(source: Path | Mapping[str, Tensor], config: ModelConfig) -> Model:
    """Convert a checkpoint. The result has its precision and is in evaluation mode.

    `source`: a file, of which nothing but tensors is read, or weights by name. `config`: what
    `ModelConfig.from_file` makes of its JSON; the numbers of words, positions and classes, and
    whether output layers are tied, are taken from the weights. TencentPretrain's norms divide by
    the standard deviation of n - 1 values, plus ε. As in its own conversion to Hugging Face, they
    become norms by the variance of n values.

    Raises ConfigError where the configuration lacks what the weights need. Raises WeightsError that
    names missing, unexpected and wrongly shaped weights, and those that differ but must be equal.
    """
    where = str(source) if isinstance(source, Path) else "the checkpoint"
    with reading(where, "a checkpoint that can be converted", WeightsError):
        stored = load_pickle(source) if isinstance(source, Path) else source
        return _convert(stored, where, config)


def _convert(stored: Mapping[str, Tensor], where: str, config: ModelConfig) -> Model:
    stored = {name: stored[original] for name, original in without_wrappers(stored).items()}
    weights = Weights.from_state(stored, where)
    weights.merge()
    streams = _streams(config, weights.tensors)
    if len(config.streams.present()) == 1:
        weights.drop_second()
    config = _fitted(config, streams, weights)
    for stream in streams:
        if stream.modality == "image":
            _place_image(stream.external, config, weights.tensors)
    parts = _parts(config, streams)
    with torch.device("meta"):
        model = Model(config)

    def read(name: str) -> Tensor:
        return _as_ours(name, weights.tensors[name], parts).clone()

    key_map = KeyMap(_rules(streams, parts), _tied(config), (r"\.freqs_cis$",))
    names = {name: name for name in weights.tensors}
    return match_weights(model, key_map, names, read, weights.where, "its configuration").load()


def _rename(name: str) -> str:
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    return name


class Weights(NamedTuple):
    """The tensors of a checkpoint by the names in the rules. `where`: the checkpoint, for
    messages."""

    tensors: dict[str, Tensor]
    where: str

    @classmethod
    def from_state(cls, stored: Mapping[str, Tensor], where: str) -> Weights:
        """The weights of a checkpoint. Raises WeightsError for anything else."""
        items = stored.items() if isinstance(stored, Mapping) else [("", stored)]
        for name, x in items:
            if not isinstance(name, str) or not isinstance(x, Tensor):
                raise WeightsError(
                    f"{where}: expected tensors by name, found {type(x).__name__} {name!r}; save"
                    " the state_dict() of the model"
                )
            if not x.dim() and not name.endswith(".logit_scale"):
                raise WeightsError(f"{where}: {name} is a single number, not a weight")
        return cls({_rename(name): x for name, x in items}, where)

    def require_equal(self, name: str, other: str, remedy: str) -> None:
        """Raises WeightsError if two tensors are there and differ."""
        if not self.equal(name, other):
            raise WeightsError(
                f"{self.where}: {name} is tied to {other}, but differs from it; {remedy}"
            )

    def equal(self, name: str, other: str) -> bool:
        """Whether two tensors are equal, or one of them is not there."""
        pair = [self.tensors[one] for one in (name, other) if one in self.tensors]
        return len(pair) < 2 or torch.equal(*pair)

    def merge(self) -> None:
        """One tensor in place of those that act as one: the relative positions of all layers, and
        both biases of a convolution."""
        for name in list(self.tensors):
            if found := LAYER_TABLE.fullmatch(name):
                self.require_equal(name, found[1] + ".transformer.0" + TABLE, "layers share it")
                # The encoder has a table of its own too, which it does not use.
                self.tensors[found[1] + TABLE] = self.tensors[name]
            elif (found := CONVOLUTION.fullmatch(name)) and self.tensors[name].dim() == 4:
                x, bias = self.tensors[name], f"{found[1]}{found[2]}.bias"
                first = found[2] == "_1"
                self.tensors[name] = x[:, 0].transpose(1, 2) if first else x[..., 0]
                other = f"{found[1]}_b{found[2].removeprefix('_')}"
                biases = [self.tensors.pop(one, x).flatten() for one in (bias, other)]
                if any(len(one) != len(x) for one in biases):
                    raise WeightsError(
                        f"{self.where}: {bias} and {other} must both have {len(x)} numbers"
                    )
                self.tensors[bias] = biases[0] + biases[1]
        for name in filter(LAYER_TABLE.fullmatch, list(self.tensors)):
            del self.tensors[name]

    def drop_second(self) -> None:
        """Without the second of two streams, which must be equal to the first one."""
        for name in list(self.tensors):
            if SECOND.match(name):
                first = SECOND.sub(r"\g<1>0", name)
                self.require_equal(name, first, "here one stream reads both texts of a pair")
                self.tensors.setdefault(first, self.tensors.pop(name))


class Stream(NamedTuple):
    """A stream by the name of its embedding, here and in the checkpoint. `number`: 0 or 1 for one
    of two streams."""

    name: str
    external: str
    number: int | None = None

    @property
    def modality(self) -> str:
        """Its modality."""
        return self.name.removeprefix("embeddings.")


class Part(NamedTuple):
    """An encoder or the decoder by its name, here and in the checkpoint."""

    name: str
    external: str
    config: EncoderConfig
    width: int


def _streams(config: ModelConfig, names: Iterable[str]) -> list[Stream]:
    """The streams that the first task reads, and that of the decoder."""
    task_name, task = next(iter(config.tasks.items()))
    decoded = config.decoded(task_name)
    spans = [span for span in task.layout(task_name).spans if span not in decoded]
    modalities = dict.fromkeys(span.modality.value for span in spans)
    if any(name.startswith(DUAL) for name in names):
        return [Stream(f"embeddings.{m}", f"{DUAL}{i}", i) for i, m in enumerate(modalities)]
    externals = ("embedding", "embedding.image")  # Words and patches are one sequence.
    found = [
        Stream(f"embeddings.{m}", external)
        for m, external in zip(modalities, externals, strict=False)
    ]
    return [*found, Stream("target_embedding", "tgt_embedding")] if config.decoder else found


def _parts(config: ModelConfig, streams: list[Stream]) -> list[Part]:
    names = {f"{STREAM}{s.modality}": f"encoder.encoder_{s.number}" for s in streams}
    dual = streams[0].number is not None
    names |= {"encoder": "encoder.encoder_0" if dual else "encoder", "decoder": "decoder"}
    widths = {f"{STREAM}{m.value}": width for m, width in config.own_widths.items()}
    return [
        Part(name, names[name], part, widths.get(name, config.width))
        for name, part in part_configs(config).items()
    ]


def _fitted(config: ModelConfig, streams: list[Stream], weights: Weights) -> ModelConfig:
    """The configuration with what the weights tell: numbers of words, positions and classes, norms,
    and whether output layers are tied."""
    settings, tensors = config.model_dump(mode="json"), weights.tensors
    for stream in streams:
        options = settings["streams"].get(stream.modality) or settings["target_embedding"]
        if words := _rows(tensors, f"{stream.external}.word.embedding.weight"):
            options["vocabulary"] = words
        positions = _rows(tensors, f"{stream.external}.pos.embedding.weight")
        if positions and "max_length" in options and not _is_joint(streams):
            options["max_length"] = positions
        if f"{stream.external}.patch.projection.weight" in tensors:
            options["patch_bias"] = f"{stream.external}.patch.projection.bias" in tensors
        norms = [f"{stream.external}.{norm}.weight" for norm in ("layer_norm", "second_norm")]
        options["second_norm"] = all(norm in tensors for norm in norms)
    _fit_outputs(config, settings, weights)
    _fit_samples(settings, tensors)
    return ModelConfig.parse(settings, "TencentPretrain's checkpoint")


def _is_joint(streams: list[Stream]) -> bool:
    """Whether words and patches are one sequence."""
    return any(stream.external == "embedding.image" for stream in streams)


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    return len(tensors[name]) if name in tensors else 0


def _fit_outputs(config: ModelConfig, settings: dict[str, Any], weights: Weights) -> None:
    """Output layers over words or visual tokens."""
    if "masked_image_token" in config.targets and OUTPUTS["mlm"] in weights.tensors:
        vocabulary = len(weights.tensors[OUTPUTS["mlm"]])
        settings["targets"]["masked_image_token"]["vocabulary"] = vocabulary
    decoded = config.target_embedding
    if decoded is not None and decoded.tied:
        weights.require_equal(f"tgt_{WORDS}", WORDS, "set share_embedding to false")
    for name, output in OUTPUTS.items():
        if getattr(config.targets.get(name), "tied", False):
            words = _output_words(config)
            # With a shared embedding, TencentPretrain ties the output layer to a table that is
            # replaced afterwards. Without `tie_weights` a checkpoint may still have equal weights.
            said = "tied" in config.targets[name].model_fields_set
            if said and not (decoded is not None and decoded.tied):
                weights.require_equal(output, words, "set tie_weights to false")
            settings["targets"][name]["tied"] = weights.equal(output, words)


def _output_words(config: ModelConfig) -> str:
    """The word embedding that an output layer may be tied to."""
    decoded = config.target_embedding
    return WORDS if decoded is None or decoded.tied else f"tgt_{WORDS}"


def _fit_samples(settings: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Targets on one vector a sample."""
    targets, classifier = settings["targets"], tensors.get("target.cls.linear_2.weight")
    if found := targets.get("classification"):
        if classifier is not None:
            names = [str(number) for number in range(len(classifier))]
            found["classes"] = found["classes"] or names
            if found["compared"] and "target.cls.linear_1.weight" not in tensors:
                found["hidden"] = False
                found["compared"] = ["first", "second", "difference", "product"]
        elif found["compared"]:  # Two streams without a classifier.
            del targets["classification"]
            for task in settings["tasks"].values():
                task["targets"].pop("classification", None)
    scale, found = tensors.get("target.clr.logit_scale"), targets.get("contrastive")
    if found and scale is not None and scale.numel() == 1 and scale.isfinite():
        found["max_scale"] = max(found["max_scale"], math.exp(min(scale, 80)))  # no limit there


def _place_image(external: str, config: ModelConfig, tensors: dict[str, Tensor]) -> None:
    """Patches have the part of the position table behind the words, and always the same segment.

    Raises ConfigError if words fill the table.
    """
    size, joint = config.picture.max_length, external == "embedding.image"
    sequence = "embedding" if joint else external
    table = f"{sequence}.pos.embedding.weight"
    start = config.streams.text.max_length if joint and config.streams.text else 0
    if table not in tensors:
        return
    rows = tensors.pop(table)
    if len(rows) < start + size:
        raise ConfigError(
            f"{table} has {len(rows)} rows, too few for texts of {start} tokens and the {size}"
            " patches behind them; set seq_length in the configuration to the length to which"
            " texts were padded (--seq_length of preprocess.py)"
        )
    segment = tensors.get(f"{sequence}.seg.embedding.weight")
    patches = rows[start : start + size]
    if segment is not None and segment.shape == (3, rows.shape[1]):
        patches = patches + segment[2 if joint else 1]
    if joint:
        tensors[table] = rows[:start]
        for end in ("weight", "bias"):
            if f"{sequence}.layer_norm.{end}" in tensors:
                tensors[f"{external}.layer_norm.{end}"] = tensors[f"{sequence}.layer_norm.{end}"]
    elif segment is not None:
        del tensors[f"{sequence}.seg.embedding.weight"]
    tensors[f"{external}.pos.embedding.weight"] = patches


def _as_ours(name: str, x: Tensor, parts: list[Part]) -> Tensor:
    """A tensor as our modules expect it."""
    if name.endswith(".seg.embedding.weight"):
        return x[1:]  # Segment 0 is padding there.
    part = next((part for part in parts if name.startswith(f"{part.external}.")), None)
    if part is None or not isinstance(part.config, TransformerConfig):
        return x
    size = part.config.size(part.width)
    if name.endswith(".relative_attention_bias.weight") and part.config.scale_attention:
        return x / math.sqrt(size)  # There the bias is scaled as the scores are.
    rotated = part.config.position.kind == "rope" and not len(x) % size
    if rotated and re.search(r"self_attn\.linear_layers\.[01]\.", name):
        # The values of a rotary pair are neighbours there and half a head apart here.
        return x.unflatten(0, (-1, size // 2, 2)).transpose(1, 2).flatten(0, 2)
    return x


def _tied(config: ModelConfig) -> dict[str, str]:
    """Name of a tensor → name of the tensor that it is equal to."""
    tied = {
        output: _output_words(config)
        for name, output in OUTPUTS.items()
        if getattr(config.targets.get(name), "tied", False)
    }
    if config.target_embedding is not None and config.target_embedding.tied:
        tied[f"tgt_{WORDS}"] = WORDS
    return tied


def _rules(streams: list[Stream], parts: list[Part]) -> Rules:
    rules = dict(TARGETS)
    for stream in streams:
        rules |= _stream_rules(stream)
    for part in parts:
        rules |= _part_rules(part)
    return rules


def _stream_rules(stream: Stream) -> Rules:
    name, external, number = stream
    rules: Rules = {
        f"{name}.content.word": f"{external}.word.embedding",
        f"{name}.mask": reshaped(f"{external}.patch.mask_emb"),
        f"{name}.positions.position.table": f"{external}.pos.embedding",
        f"{name}.positions.segment.table": f"{external}.seg.embedding",
        f"{name}.norm": [f"{external}.layer_norm", f"{external}.second_norm"],
        f"{name}.second_norm": f"{external}.second_norm",
        f"{name}.projection": "encoder.linear"
        if number is None
        else f"encoder.encoder_{number}.linear",
    }
    frames = f"{external}.speech.conv.conv_layers.{{i}}.0"
    rules[f"{name}.content.filterbank.convolutions.{{i}}"] = frames
    for content in ("patch", "masked_patch"):
        rules[f"{name}.content.{content}.first"] = reshaped(f"{external}.patch.cls_emb")
        rules[f"{name}.content.{content}.projection"] = f"{external}.patch.projection"
    projection = transposed(f"target.clr.encoder_{number}_projection")
    return rules | {f"targets.contrastive.projections.{stream.modality}.weight": projection}


def _part_rules(part: Part) -> Rules:
    """Rules of an encoder of any kind, or of the decoder."""
    name, external, config, _ = part
    block, norm, table = f"{external}.transformer.{{i}}", "layer_norm_2", "relative_pos_emb"
    rules: Rules = {}
    if name == "decoder":
        block, norm, table = "decoder.transformer_decoder.{i}", "layer_norm_3", "self_pos_emb"
        rules = cross_attention_rules(
            block,
            query="context_attn.linear_layers.0",
            key="context_attn.linear_layers.1",
            value="context_attn.linear_layers.2",
            output="context_attn.final_linear",
            norm="layer_norm_2",
        )
    gated = isinstance(config, TransformerConfig) and config.gated
    rules |= {
        **block_rules(
            f"{name}.blocks.{{i}}",
            block,
            qkv=joined(*(f"self_attn.linear_layers.{n}" for n in range(3))),
            attention_output="self_attn.final_linear",
            attention_norm="layer_norm_1",
            inner=joined(*["feed_forward.linear_gate"] * gated, "feed_forward.linear_1"),
            outer="feed_forward.linear_2",
            feed_forward_norm=norm,
        ),
        f"{name}.last_norm": f"{external}.layer_norm",
        f"{name}.position.table": f"{external}.{table}.relative_attention_bias",
    }
    for layer in range(config.layers):
        number = f".{layer - 1}" if layer else "_1"
        halves = joined(f"{external}.conv{number}", f"{external}.gate{number}")
        rules[f"{name}.convolutions.{layer}"] = halves
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        for weight in (f"{kind}_l{{i}}", f"{kind}_l{{i}}_reverse"):
            first = [f"{external}.rnn.{weight}", f"{external}.rnn_forward.{weight}"]
            rules[f"{name}.stacks.0.{weight}"] = first
            rules[f"{name}.stacks.1.{weight}"] = f"{external}.rnn_backward.{weight}"
    return rules


TARGETS: Rules = {
    "targets.mlm.transform": "target.mlm.linear_1",
    "targets.mlm.norm": "target.mlm.layer_norm",
    "targets.mlm.output": "target.mlm.linear_2",
    "targets.mlm.bias": "target.mlm.linear_2.bias",
    "targets.masked_image_token.transform": "target.mlm.linear_1",
    "targets.masked_image_token.norm": "target.mlm.layer_norm",
    "targets.masked_image_token.classifier": "target.mlm.linear_2",
    "targets.sp.pooler": "target.sp.linear_1",
    "targets.sp.classifier": "target.sp.linear_2",
    "targets.lm.output": "target.lm.output_layer",
    "targets.lm.bias": "target.lm.output_layer.bias",
    "targets.bilm.output": "target.bilm.output_layer",
    "targets.classification.pooler": "target.cls.linear_1",
    "targets.classification.classifier": "target.cls.linear_2",
    "targets.contrastive.log_scale": "target.clr.logit_scale",
}

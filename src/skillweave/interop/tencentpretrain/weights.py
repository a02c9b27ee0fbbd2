"""Checkpoints of TencentPretrain and of UER, its predecessor.

The rules name weights as the configurations have them that
`skillweave.interop.tencentpretrain.config` makes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.config.encoder import TransformerConfig
from skillweave.interop.checkpoints import load_pickle
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

RENAMED = (
    # Norms.
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    # A block that all layers share.
    (r"^encoder\.transformer\.(?=\D)", "encoder.transformer.0."),
    # Older versions.
    (r"^target\.decoder\.", "decoder."),
    (r"^target\.embedding\.", "tgt_embedding."),
    (r"embedding\.word_embedding\.", "embedding.word.embedding."),
    (r"embedding\.position_embedding\.", "embedding.pos.embedding."),
    (r"embedding\.segment_embedding\.", "embedding.seg.embedding."),
    (r"^target\.mlm_linear_", "target.mlm.linear_"),
    (r"^target\.layer_norm\.", "target.mlm.layer_norm."),
    (r"^target\.(nsp|sop|sp)_linear_", "target.sp.linear_"),
    (r"^target\.output_layer\.", "target.lm.output_layer."),
    # Fine-tuned classifiers.
    (r"^output_layer_", "target.cls.linear_"),
)
"""Names in checkpoints → names in the rules."""
DUAL = "embedding.dual.embedding_"
WORDS = "embedding.word.embedding.weight"


def from_tencent(source: Path | Mapping[str, Tensor], config: ModelConfig) -> Model:
    """Convert a checkpoint. The result has its precision and is in evaluation mode.

    `source`: a file, of which nothing but tensors is read, or weights by name. `config`: what
    `ModelConfig.from_file` makes of its JSON; the numbers of words, positions and classes are taken
    from the weights. TencentPretrain's norms divide by the standard deviation of n - 1 values, plus
    ε. As in its own conversion to Hugging Face, they become norms by the variance of n values.

    Raises ConfigError for positions that are computed in another way there. Raises WeightsError
    that names missing, unexpected or wrongly shaped weights.
    """
    state = load_pickle(source) if isinstance(source, Path) else source
    names = {_rename(name): name for name in state}
    if any("sinusoidalpos" in name for name in names):
        raise ConfigError(
            "TencentPretrain's sinusoidal positions alternate sines and cosines, which has no"
            " counterpart here"
        )
    shapes = {name: state[stored].shape for name, stored in names.items()}
    config = _with_sizes(config, shapes)
    with torch.device("meta"):
        model = Model(config)
    key_map = KeyMap(_rules(config, names), _tied(config, names), (r"\.freqs_cis$",))
    where = str(source) if isinstance(source, Path) else "the checkpoint"

    def read(name: str) -> Tensor:
        return _convert(_rename(name), state[name], config)

    return match_weights(model, key_map, names, read, where, "its configuration").load()


def _rename(name: str) -> str:
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _with_sizes(config: ModelConfig, shapes: Mapping[str, torch.Size]) -> ModelConfig:
    """The configuration with the numbers of words, positions and classes that the weights have."""
    settings = config.model_dump(mode="json")
    streams = {"target_embedding": settings["target_embedding"]}
    streams |= {f"embeddings.{name}": stream for name, stream in settings["streams"].items()}
    for external, name in _embeddings(config, shapes).items():
        stream = streams[name]
        if "vocabulary" in stream:
            sizes = {"vocabulary": "word", "max_length": "pos"}
            for option, module in sizes.items():
                table = shapes.get(f"{external}.{module}.embedding.weight")
                stream[option] = table[0] if table else stream[option]
        if f"{external}.patch.projection.weight" in shapes:
            stream["patch_bias"] = f"{external}.patch.projection.bias" in shapes
    classifier = shapes.get("target.cls.linear_2.weight")
    if classifier and not settings["targets"]["classification"]["classes"]:
        names = [str(number) for number in range(classifier[0])]
        settings["targets"]["classification"]["classes"] = names
    return ModelConfig.parse(settings, "TencentPretrain's checkpoint")


def _is_dual(names: Mapping[str, object]) -> bool:
    """Whether a checkpoint has two streams."""
    return any(".dual." in name for name in names)


def _embeddings(config: ModelConfig, names: Mapping[str, object]) -> dict[str, str]:
    """Name of an embedding in the checkpoint → name here."""
    task_name, task = next(iter(config.tasks.items()))
    decoded = config.decoded(task_name)
    spans = [span for span in task.layout(task_name).spans if span not in decoded]
    modalities = list(dict.fromkeys(span.modality.value for span in spans))
    if _is_dual(names):
        return {f"{DUAL}{i}": f"embeddings.{name}" for i, name in enumerate(modalities)}
    found = {"embedding": f"embeddings.{modalities[0]}"}
    return found | {"tgt_embedding": "target_embedding"} if config.decoder else found


def _rules(config: ModelConfig, names: Mapping[str, object]) -> Rules:
    gated = isinstance(config.encoder, TransformerConfig) and config.encoder.gated
    dual = _is_dual(names)
    rules: Rules = {} if dual else {**_encoder("encoder", "encoder", gated)}
    for i, (external, name) in enumerate(_embeddings(config, names).items()):
        norm = f"embedding.dual.stream_{i}_layer_norm" if dual else f"{external}.layer_norm"
        rules |= {
            f"{name}.content.word": f"{external}.word.embedding",
            f"{name}.content.patch.first": reshaped(f"{external}.patch.cls_emb"),
            f"{name}.content.patch.projection": f"{external}.patch.projection",
            f"{name}.positions.position.table": f"{external}.pos.embedding",
            f"{name}.positions.segment.table": f"{external}.seg.embedding",
            f"{name}.norm": norm,
            f"{name}.projection": "encoder.linear",
        }
        if dual:
            modality = name.removeprefix("embeddings.")
            encoder = f"stream_encoders.{modality}" if i else "encoder"
            rules |= _encoder(encoder, f"encoder.encoder_{i}", gated)
            projection = transposed(f"target.clr.encoder_{i}_projection")
            rules[f"targets.contrastive.projections.{modality}.weight"] = projection
    return {**rules, **_decoder(gated), **TARGETS}


def _decoder(gated: bool) -> Rules:
    block = "decoder.transformer_decoder.{i}"
    return {
        **_block("decoder.blocks.{i}", block, "layer_norm_3", gated),
        **cross_attention_rules(
            block,
            query="context_attn.linear_layers.0",
            key="context_attn.linear_layers.1",
            value="context_attn.linear_layers.2",
            output="context_attn.final_linear",
            norm="layer_norm_2",
        ),
        "decoder.last_norm": "decoder.layer_norm",
        "decoder.position.table": "decoder.self_pos_emb.relative_attention_bias",
    }


def _encoder(name: str, external: str, gated: bool) -> Rules:
    block = f"{external}.transformer.{{i}}"
    rules: Rules = {
        **_block(f"{name}.blocks.{{i}}", block, "layer_norm_2", gated),
        f"{name}.last_norm": f"{external}.layer_norm",
        f"{name}.position.table": f"{external}.relative_pos_emb.relative_attention_bias",
    }
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        for part in (f"{kind}_l{{i}}", f"{kind}_l{{i}}_reverse"):
            first = [f"{external}.rnn.{part}", f"{external}.rnn_forward.{part}"]
            rules[f"{name}.stacks.0.{part}"] = first
            rules[f"{name}.stacks.1.{part}"] = f"{external}.rnn_backward.{part}"
    return rules


def _block(name: str, external: str, last_norm: str, gated: bool) -> Rules:
    """`last_norm`: that of the feed-forward."""
    gate = ["feed_forward.linear_gate"] if gated else []
    return block_rules(
        name,
        external,
        qkv=joined(*(f"self_attn.linear_layers.{n}" for n in range(3))),
        attention_output="self_attn.final_linear",
        attention_norm="layer_norm_1",
        inner=joined(*gate, "feed_forward.linear_1"),
        outer="feed_forward.linear_2",
        feed_forward_norm=last_norm,
    )


TARGETS: Rules = {
    "targets.mlm.transform": "target.mlm.linear_1",
    "targets.mlm.norm": "target.mlm.layer_norm",
    "targets.mlm.bias": "target.mlm.linear_2.bias",
    "targets.sp.pooler": "target.sp.linear_1",
    "targets.sp.classifier": "target.sp.linear_2",
    "targets.lm.output": "target.lm.output_layer",
    "targets.lm.bias": "target.lm.output_layer.bias",
    "targets.bilm.output": "target.bilm.output_layer",
    "targets.classification.pooler": "target.cls.linear_1",
    "targets.classification.classifier": "target.cls.linear_2",
    "targets.contrastive.log_scale": "target.clr.logit_scale",
}


def _tied(config: ModelConfig, names: Mapping[str, object]) -> dict[str, str]:
    """Name of a tensor → name of the tensor that it must be equal to."""
    tied = {"target.mlm.linear_2.weight": WORDS}
    decoded = config.target_embedding
    shares_words = decoded is None or decoded.tied
    if decoded is not None and decoded.tied:
        tied[f"tgt_{WORDS}"] = WORDS
    if "lm" in config.targets and getattr(config.targets["lm"], "tied", False):
        tied["target.lm.output_layer.weight"] = WORDS if shares_words else f"tgt_{WORDS}"
    if len(config.streams.present()) == 1:
        # Both streams of a dual model are the same.
        second = r"^(embedding\.dual\.embedding_|embedding\.dual\.stream_|encoder\.encoder_)1"
        for name in names:
            if re.match(second, name):
                tied[name] = re.sub(second, r"\g<1>0", name)
    return tied


def _convert(name: str, x: Tensor, config: ModelConfig) -> Tensor:
    """A tensor as our modules expect it."""
    if name.endswith(".seg.embedding.weight"):
        return x[1:]  # Segment 0 is padding there.
    encoder = config.encoder
    if not isinstance(encoder, TransformerConfig) or encoder.position.kind != "rope":
        return x.clone()
    if re.search(r"self_attn\.linear_layers\.[01]\.", name):
        # The values of a rotary pair are neighbours there and half a head apart here.
        size = encoder.size(config.width)
        return x.unflatten(0, (-1, size // 2, 2)).transpose(1, 2).flatten(0, 2)
    return x.clone()

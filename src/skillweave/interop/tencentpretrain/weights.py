"""TencentPretrain's own checkpoints (and those of UER, its forerunner) to our models: the map of
names as data.

The rules are the engine's, to our names of the configuration that
`skillweave.interop.tencentpretrain.config` makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.config.encoder import TransformerConfig
from skillweave.interop.huggingface.checkpoint import load_pickle
from skillweave.interop.huggingface.convert import match
from skillweave.interop.huggingface.engine import Rule, joined, reshaped, rule, transposed
from skillweave.interop.huggingface.family import Family, Head
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

RENAMED = (
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    (r"^encoder\.transformer\.(?=\D)", "encoder.transformer.0."),
    (r"^target\.decoder\.", "decoder."),
    (r"^target\.embedding\.", "tgt_embedding."),
    (r"embedding\.word_embedding\.", "embedding.word.embedding."),
    (r"embedding\.position_embedding\.", "embedding.pos.embedding."),
    (r"embedding\.segment_embedding\.", "embedding.seg.embedding."),
    (r"^target\.mlm_linear_", "target.mlm.linear_"),
    (r"^target\.layer_norm\.", "target.mlm.layer_norm."),
    (r"^target\.(nsp|sop|sp)_linear_", "target.sp.linear_"),
    (r"^target\.output_layer\.", "target.lm.output_layer."),
    (r"^output_layer_", "target.cls.linear_"),
)
"""Names of norms, of a block that all layers share, of older versions and of fine-tuned classifiers
→ those of the rules."""
WORDS = "embedding.word.embedding.weight"


def from_tencent(source: Path | Mapping[str, Tensor], config: ModelConfig) -> Model:
    """Our model of one of TencentPretrain's checkpoints, in its precision, ready for inference.

    `source`: a file, of which nothing but tensors is read, or weights by name. `config`: what
    `ModelConfig.from_file` makes of its JSON; how many words, positions and classes there are, the
    weights say. Their norms divide by the standard deviation of n - 1 numbers, plus ε; as in their
    own conversion to Hugging Face, these become norms by the variance of n. Raises ConfigError for
    positions that are computed otherwise there; WeightsError that names missing, unexpected or
    wrongly shaped weights.
    """
    state = load_pickle(source) if isinstance(source, Path) else source
    names = {_renamed(name): name for name in state}
    if any("sinusoidalpos" in name for name in names):
        raise ConfigError(
            "TencentPretrain's sinusoidal positions alternate sines and cosines, which is not how"
            " they are made here"
        )
    config = _sized(config, {name: state[own].shape for name, own in names.items()})
    with torch.device("meta"):
        model = Model(config)
    two = any(".dual." in name for name in names)
    rules = tuple(_rules(config, two))
    family = Family("tencentpretrain", {}, rules, {}, ignored=(r"\.freqs_cis$",))
    head, where = (
        Head(tied=_tied(config, names)),
        str(source) if isinstance(source, Path) else "the checkpoint",
    )
    return match(
        model, family, head, names, lambda name: _turned(name, state[name], config), where
    ).filled()


def _renamed(name: str) -> str:
    for old, new in RENAMED:
        name = re.sub(old, new, name)
    return name


def _sized(config: ModelConfig, shapes: Mapping[str, torch.Size]) -> ModelConfig:
    """The configuration with the numbers of words, positions and classes, and the biases, that the
    weights have."""
    data = config.model_dump(mode="json")
    for prefix, stream in _embeddings(config, any(".dual." in name for name in shapes)).items():
        own = (
            data[stream]
            if stream == "target_embedding"
            else data["streams"][stream.rpartition(".")[2]]
        )
        if (words := shapes.get(f"{prefix}.word.embedding.weight")) is not None:
            own["vocabulary"] = words[0]
        if (
            "vocabulary" in own
            and (positions := shapes.get(f"{prefix}.pos.embedding.weight")) is not None
        ):
            own["max_length"] = positions[0]
        if f"{prefix}.patch.projection.weight" in shapes:
            own["patch_bias"] = f"{prefix}.patch.projection.bias" in shapes
    if (classes := shapes.get("target.cls.linear_2.weight")) is not None and not data["targets"][
        "classification"
    ]["classes"]:
        data["targets"]["classification"]["classes"] = [str(i) for i in range(classes[0])]
    return ModelConfig.parse(data, "TencentPretrain's checkpoint")


def _embeddings(config: ModelConfig, two: bool) -> dict[str, str]:
    """Where theirs has the embeddings → where ours has them; `two`: a dual model, of whose passes
    the first is stream 0."""
    name, task = next(iter(config.tasks.items()))
    decoded = config.decoded(name)
    modalities = [span.modality.value for span in task.layout(name).spans if span not in decoded]
    if two:
        sides = [modalities[0], *[m for m in modalities[1:] if m != modalities[0]]]
        return {f"embedding.dual.embedding_{i}": f"embeddings.{m}" for i, m in enumerate(sides)}
    own = {"embedding": f"embeddings.{modalities[0]}"}
    return own | {"tgt_embedding": "target_embedding"} if config.decoder else own


def _rules(config: ModelConfig, two: bool) -> Iterator[Rule]:
    gated = isinstance(config.encoder, TransformerConfig) and config.encoder.gated
    for i, (theirs, ours) in enumerate(_embeddings(config, two).items()):
        yield rule(f"{ours}.content.word", f"{theirs}.word.embedding")
        yield rule(f"{ours}.content.patch.first", reshaped(f"{theirs}.patch.cls_emb"))
        yield rule(f"{ours}.content.patch.projection", f"{theirs}.patch.projection")
        yield rule(f"{ours}.positions.position.table", f"{theirs}.pos.embedding")
        yield rule(f"{ours}.positions.segment.table", f"{theirs}.seg.embedding")
        yield rule(
            f"{ours}.norm",
            f"embedding.dual.stream_{i}_layer_norm" if two else f"{theirs}.layer_norm",
        )
        yield rule(f"{ours}.projection", "encoder.linear")
        if two:
            modality = ours.rpartition(".")[2]
            yield from _encoder(
                f"stream_encoders.{modality}" if i else "encoder", f"encoder.encoder_{i}", gated
            )
            projection = transposed(f"target.clr.encoder_{i}_projection")
            yield rule(f"targets.contrastive.projections.{modality}.weight", projection)
    if not two:
        yield from _encoder("encoder", "encoder", gated)
    yield from _blocks("decoder.blocks.{i}", "decoder.transformer_decoder.{i}", 3, gated)
    yield from _cross()
    yield rule("decoder.last_norm", "decoder.layer_norm")
    yield rule("decoder.position.table", "decoder.self_pos_emb.relative_attention_bias")
    yield from TARGETS


def _encoder(ours: str, theirs: str, gated: bool) -> Iterator[Rule]:
    yield from _blocks(ours + ".blocks.{i}", theirs + ".transformer.{i}", 2, gated)
    yield rule(f"{ours}.last_norm", f"{theirs}.layer_norm")
    yield rule(f"{ours}.position.table", f"{theirs}.relative_pos_emb.relative_attention_bias")
    for part in (
        f"{kind}_l{{i}}{way}"
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        for way in ("", "_reverse")
    ):
        yield rule(
            f"{ours}.stacks.0.{part}", f"{theirs}.rnn.{part}", f"{theirs}.rnn_forward.{part}"
        )
        yield rule(f"{ours}.stacks.1.{part}", f"{theirs}.rnn_backward.{part}")


def _blocks(ours: str, theirs: str, last: int, gated: bool) -> Iterator[Rule]:
    """`last`: the number of the norm of the feed-forward."""
    inner = f"{theirs}.feed_forward"
    yield rule(
        f"{ours}.attention.qkv.experts.shared",
        joined(*(f"{theirs}.self_attn.linear_layers.{n}" for n in range(3))),
    )
    yield rule(f"{ours}.attention.output", f"{theirs}.self_attn.final_linear")
    yield rule(f"{ours}.attention_norm", f"{theirs}.layer_norm_1")
    first = joined(*([f"{inner}.linear_gate"] if gated else []), f"{inner}.linear_1")
    yield rule(f"{ours}.feed_forward.experts.shared.inner", first)
    yield rule(f"{ours}.feed_forward.experts.shared.outer", f"{inner}.linear_2")
    yield rule(f"{ours}.feed_forward_norm", f"{theirs}.layer_norm_{last}")


def _cross() -> Iterator[Rule]:
    ours, theirs = "decoder.blocks.{i}.cross", "decoder.transformer_decoder.{i}"
    yield rule(f"{ours}.attention.query", f"{theirs}.context_attn.linear_layers.0")
    yield rule(
        f"{ours}.attention.key_value",
        joined(*(f"{theirs}.context_attn.linear_layers.{n}" for n in (1, 2))),
    )
    yield rule(f"{ours}.attention.output", f"{theirs}.context_attn.final_linear")
    yield rule(f"{ours}.norm", f"{theirs}.layer_norm_2")


TARGETS = (
    rule("targets.mlm.transform", "target.mlm.linear_1"),
    rule("targets.mlm.norm", "target.mlm.layer_norm"),
    rule("targets.mlm.bias", "target.mlm.linear_2.bias"),
    rule("targets.sp.pooler", "target.sp.linear_1"),
    rule("targets.sp.classifier", "target.sp.linear_2"),
    rule("targets.lm.output", "target.lm.output_layer"),
    rule("targets.lm.bias", "target.lm.output_layer.bias"),
    rule("targets.bilm.output", "target.bilm.output_layer"),
    rule("targets.classification.pooler", "target.cls.linear_1"),
    rule("targets.classification.classifier", "target.cls.linear_2"),
    rule("targets.contrastive.log_scale", "target.clr.logit_scale"),
)


def _tied(config: ModelConfig, names: Mapping[str, str]) -> dict[str, str]:
    """Weights of theirs that are others here, and must be equal."""
    tied = {"target.mlm.linear_2.weight": WORDS}
    decoded = config.target_embedding
    if decoded is not None and decoded.tied:
        tied[f"tgt_{WORDS}"] = WORDS
    if "lm" in config.targets and getattr(config.targets["lm"], "tied", False):
        tied["target.lm.output_layer.weight"] = (
            WORDS if decoded is None or decoded.tied else f"tgt_{WORDS}"
        )
    second = re.compile(
        r"^(embedding\.dual\.embedding_|embedding\.dual\.stream_|encoder\.encoder_)1"
    )
    if len(config.streams.present()) == 1:  # both streams are the same
        tied |= {name: second.sub(r"\g<1>0", name) for name in names if second.match(name)}
    return tied


def _turned(name: str, x: Tensor, config: ModelConfig) -> Tensor:
    """One of theirs as it is here: no segment for padding, and pairs of rotary numbers half a head
    apart, not side by side."""
    if _renamed(name).endswith(".seg.embedding.weight"):
        return x[1:]
    encoder = config.encoder
    if (
        isinstance(encoder, TransformerConfig)
        and encoder.position.kind == "rope"
        and re.search(r"self_attn\.linear_layers\.[01]\.", name)
    ):
        size = encoder.size(config.width)
        return x.unflatten(0, (-1, size // 2, 2)).transpose(1, 2).flatten(0, 2)
    return x.clone()

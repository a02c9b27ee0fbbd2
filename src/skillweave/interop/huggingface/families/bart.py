"""BART (arXiv 1910.13461): BERT's encoder with a decoder, both post-norm; and Pegasus (arXiv
1912.08777): the same pre-norm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skillweave.interop.huggingface.engine import Rule, joined, reshaped, rule
from skillweave.interop.huggingface.families.t5 import SIDES, SPANS, decided
from skillweave.interop.huggingface.family import Family, Field, Head, activation

STREAMS = {
    "encoder": ("streams.text", "embeddings.text"),
    "decoder": ("target_embedding", "target_embedding"),
}
"""Side → where its stream stands in our configuration, and among our weights."""


def _side(side: str) -> Iterator[Rule]:
    stream = STREAMS[side][1]
    yield rule(f"{stream}.positions.position.table", f"model.{side}.embed_positions")
    yield rule(f"{stream}.norm", f"model.{side}.layernorm_embedding")
    yield from layers(side)


def layers(side: str) -> Iterator[Rule]:
    """The blocks of the encoder or decoder, as fairseq names them."""
    ours, theirs = side + ".blocks.{i}", f"model.{side}.layers.{{i}}"
    yield rule(
        f"{ours}.attention.qkv.experts.shared",
        joined(*(f"{theirs}.self_attn.{x}_proj" for x in "qkv")),
    )
    yield rule(
        f"{ours}.attention.bias", joined(*(f"{theirs}.self_attn.{x}_proj.bias" for x in "qv"))
    )
    yield rule(f"{ours}.attention.output", f"{theirs}.self_attn.out_proj")
    yield rule(f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm")
    yield rule(f"{ours}.feed_forward.experts.shared.inner", f"{theirs}.fc1")
    yield rule(f"{ours}.feed_forward.experts.shared.outer", f"{theirs}.fc2")
    yield rule(f"{ours}.feed_forward_norm", f"{theirs}.final_layer_norm")


def cross() -> Iterator[Rule]:
    """The decoder's attention to what the encoder made."""
    ours, theirs = "decoder.blocks.{i}.cross", "model.decoder.layers.{i}.encoder_attn"
    yield rule(f"{ours}.attention.query", f"{theirs}.q_proj")
    yield rule(f"{ours}.attention.key_value", joined(f"{theirs}.k_proj", f"{theirs}.v_proj"))
    yield rule(f"{ours}.attention.value_bias", f"{theirs}.v_proj.bias")
    yield rule(f"{ours}.attention.output", f"{theirs}.out_proj")
    yield rule(f"{ours}.norm", f"{theirs}_layer_norm")


def _fields(side: str) -> dict[str, str | Field]:
    stream = STREAMS[side][0]
    return {
        f"{stream}.vocabulary": "vocab_size",
        f"{stream}.max_length": "max_position_embeddings",
        f"{stream}.scale_embedding": "scale_embedding",
        **sizes(side),
    }


def sizes(side: str) -> dict[str, str | Field]:
    """The sizes of the encoder or decoder."""
    return {
        f"{side}.layers": f"{side}_layers",
        f"{side}.heads": f"{side}_attention_heads",
        f"{side}.feed_forward": f"{side}_ffn_dim",
        f"{side}.activation": activation("activation_function"),
        f"{side}.dropout": "dropout",
        f"{side}.attention_dropout": "attention_dropout",
        f"{side}.activation_dropout": "activation_dropout",
    }


TIED = {f"model.{side}.embed_tokens.weight": "model.shared.weight" for side in SIDES}
HEADS = {
    "Model": Head(tied=TIED, unused=("lm_head.", "final_logits_bias")),
    "ForConditionalGeneration": Head(
        {"lm": {"bias": True}},
        (rule("targets.lm.bias", reshaped("final_logits_bias")),),
        tied={**TIED, "lm_head.weight": "model.shared.weight"},
    ),
}
READING = {
    "ForSequenceClassification": decided(TIED),
    "ForQuestionAnswering": Head(
        {"span": {}}, (rule("targets.span.classifier", "qa_outputs"),), tied=TIED
    ),
}
"""What looks at the decoder's tokens; Pegasus has none there."""


def _family(
    model_type: str,
    name: str,
    heads: Mapping[str, Head],
    streams: Mapping[str, Any],
    sides: Mapping[str, Any],
    *rules: Rule,
) -> Family:
    """A family of BART's names, with its heads and what is fixed of its streams and sides."""
    both = (*_side("encoder"), *_side("decoder"), *cross(), *rules)
    return Family(
        model_type,
        {"width": "d_model", **_fields("encoder"), **_fields("decoder")},
        (rule("embeddings.text.content.word", "model.shared"), *both),
        {f"{name}{head}": one for head, one in heads.items()},
        base="model.",
        constants={
            **{
                f"{stream}.{option}": value
                for stream, _ in STREAMS.values()
                for option, value in streams.items()
            },
            **{f"{side}.{option}": value for side in SIDES for option, value in sides.items()},
        },
        required={"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "tie_word_embeddings": True},
        spans=SPANS,
    )


TABLES = {"embedding": ["word", "position"]}
BART = _family(
    "bart", "Bart", HEADS | READING, {**TABLES, "position_offset": 2}, {"norm_epsilon": 1e-5}
)
PEGASUS = _family(
    "pegasus",
    "Pegasus",
    HEADS,
    {**TABLES, "norm": False},
    {"norm_epsilon": 1e-5, "norm_position": "pre"},
    *(rule(f"{side}.last_norm", f"model.{side}.layer_norm") for side in SIDES),
)
"""Its tables of positions hold sines and cosines, which nothing trains there."""

"""T5 (arXiv 1910.10683) and its version 1.1: relative positions as a bias, RMS norms, no biases,
unscaled scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from skillweave.interop.huggingface.engine import Rule, joined, rule
from skillweave.interop.huggingface.family import ACTIVATIONS, CLASSES, Family, Field, Head

NAMES = {own: theirs for theirs, own in reversed(ACTIVATIONS.items())} | {"gelu_tanh": "gelu_new"}
SHARED = {
    "heads": "num_heads",
    "head_size": "d_kv",
    "feed_forward": "d_ff",
    "norm_epsilon": "layer_norm_epsilon",
    "dropout": "dropout_rate",
    "attention_dropout": "dropout_rate",
    "position.buckets": "relative_attention_num_buckets",
    "position.max_distance": "relative_attention_max_distance",
}
FIXED = {
    "position.kind": "t5_bias",
    "norm": "rms",
    "norm_position": "pre",
    "scale_attention": False,
    "biases": [],
}
SIDES = ("encoder", "decoder")
SPANS = (
    {"modality": "text"},
    {"modality": "text", "role": "target", "attention": "causal", "encoder_pass": 1},
)
"""What the encoder reads, and what the decoder reads, in a pass of its own."""


def _blocks(side: str, feed_forward: int) -> Iterator[Rule]:
    """The blocks of the encoder or decoder; `feed_forward`: which of a block's layers that is."""
    ours, theirs = side + ".blocks.{i}", side + ".block.{i}.layer"
    inner = f"{theirs}.{feed_forward}.DenseReluDense"
    yield rule(
        f"{ours}.attention.qkv.experts.shared",
        joined(*(f"{theirs}.0.SelfAttention.{x}" for x in "qkv")),
    )
    yield rule(f"{ours}.attention.output", f"{theirs}.0.SelfAttention.o")
    yield rule(f"{ours}.attention_norm", f"{theirs}.0.layer_norm")
    yield rule(
        f"{ours}.feed_forward.experts.shared.inner",
        f"{inner}.wi",
        joined(f"{inner}.wi_0", f"{inner}.wi_1"),
    )
    yield rule(f"{ours}.feed_forward.experts.shared.outer", f"{inner}.wo")
    yield rule(f"{ours}.feed_forward_norm", f"{theirs}.{feed_forward}.layer_norm")
    yield rule(
        f"{side}.position.table", f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
    )
    yield rule(f"{side}.last_norm", f"{side}.final_layer_norm")


def _cross() -> Iterator[Rule]:
    ours, theirs = "decoder.blocks.{i}", "decoder.block.{i}.layer.1"
    yield rule(f"{ours}.cross.attention.query", f"{theirs}.EncDecAttention.q")
    yield rule(
        f"{ours}.cross.attention.key_value",
        joined(f"{theirs}.EncDecAttention.k", f"{theirs}.EncDecAttention.v"),
    )
    yield rule(f"{ours}.cross.attention.output", f"{theirs}.EncDecAttention.o")
    yield rule(f"{ours}.cross.norm", f"{theirs}.layer_norm")


def _ours(sides: Sequence[str], config: Any) -> dict[str, Any]:
    gated = config.is_gated_act
    feed_forward = {"activation": ACTIVATIONS[config.dense_act_fn], "gated": gated}
    return {f"{side}.{option}": value for side in sides for option, value in feed_forward.items()}


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    name = NAMES[ours["encoder.activation"]]
    # as they call it when it is gated
    name = "gelu" if ours["encoder.gated"] and name == "gelu_new" else name
    # They tie the output in any case, and take what the option says for whether it is scaled.
    return {
        "feed_forward_proj": f"gated-{name}" if ours["encoder.gated"] else name,
        "tie_word_embeddings": ours.get("targets.lm.scaled", True),
    }


WORDS = {
    name: "shared.weight"
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
}


def _family(*sides: str) -> Family:
    """The encoder and the decoder, or the encoder alone; without heads."""
    streams = ("streams.text", "target_embedding")[: len(sides)]
    numbers = {"encoder": 1, "decoder": 2}
    layers = {"encoder": "num_layers", "decoder": "num_decoder_layers"}
    both = len(sides) == len(SIDES)
    return Family(
        "t5",
        {
            "width": "d_model",
            **{f"{stream}.vocabulary": "vocab_size" for stream in streams},
            **{f"{side}.layers": layers[side] for side in sides},
            **{f"{side}.{option}": theirs for side in sides for option, theirs in SHARED.items()},
        },
        (
            rule("embeddings.text.content.word", "shared"),
            *(one for side in sides for one in _blocks(side, numbers[side])),
            *(_cross() if both else ()),
        ),
        {},
        constants={
            **{f"{stream}.embedding": ["word"] for stream in streams},
            **{f"{stream}.norm": False for stream in streams},
            **{f"{side}.{option}": value for side in sides for option, value in FIXED.items()},
        },
        ours=partial(_ours, sides),
        theirs=_theirs,
        spans=SPANS[: len(sides)],
        ignored=(r"EncDecAttention\.relative_attention_bias",),
    )


def decided(tied: Mapping[str, str]) -> Head:
    """A class from the decoder's last token, where it reads the text once more (BART section
    3.1)."""
    rules = (
        rule("targets.classification.pooler", "classification_head.dense"),
        rule("targets.classification.classifier", "classification_head.out_proj"),
    )
    return Head(
        {"classification": {"pooling": "last"}},
        rules,
        {"targets.classification.classes": CLASSES},
        tied,
    )


ENCODER = _family("encoder")
T5 = replace(
    _family(*SIDES),
    heads={
        "T5ForConditionalGeneration": Head(
            {"lm": {}}, fields={"targets.lm.scaled": Field("scale_decoder_outputs")}, tied=WORDS
        ),
        "T5Model": Head(tied=WORDS, unused=("lm_head.",)),
        "T5ForSequenceClassification": replace(decided(WORDS), base="transformer."),
        "T5ForQuestionAnswering": Head(
            {"span": {}}, (rule("targets.span.classifier", "qa_outputs"),), tied=WORDS
        ),
        "T5EncoderModel": Head(tied=WORDS, family=ENCODER),
        "T5ForTokenClassification": Head(
            {"token_labels": {}},
            (rule("targets.token_labels.classifier", "classifier"),),
            {"targets.token_labels.classes": CLASSES},
            WORDS,
            family=ENCODER,
            base="transformer.",
        ),
    },
)

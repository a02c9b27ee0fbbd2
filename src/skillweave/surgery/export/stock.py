"""Which encoders have the architecture of a stock Hugging Face model."""

from __future__ import annotations

from collections.abc import Iterable

from skillweave.batch import Attention, Modality
from skillweave.config.base import Config
from skillweave.config.encoder import TransformerConfig
from skillweave.model.model import Model

CLASSES = {
    (Modality.TEXT, "post"): "BertModel",
    (Modality.TEXT, "pre"): "RobertaPreLayerNormModel",
    (Modality.CODE, "post"): "BertModel",
    (Modality.CODE, "pre"): "RobertaPreLayerNormModel",
    (Modality.IMAGE, "pre"): "ViTModel",
    (Modality.VIDEO, "pre"): "VivitModel",
}
"""Modality and position of the norms → the class with the same architecture."""
EXPRESSED = (
    "layers",
    "heads",
    "feed_forward",
    "activation",
    "norm_position",
    "norm_epsilon",
    "dropout",
    "attention_dropout",
)
"""Options of an encoder that stock encoders have too. They have the default of all others."""
OWN = {
    "TextStream": ("embedding_size", "scale_embedding"),
    "CodeStream": ("embedding_size", "scale_embedding"),
    "ImageStream": ("distilled", "cls_token", "registers"),
    "VideoStream": ("cls_token",),
    "BackboneImageStream": ("backbone",),
    "BackboneVideoStream": ("backbone",),
}
"""Options of a stream of which stock encoders have the default."""
MODULES = ("modality", "masked_patch", "visible_patch", "visible_tubelet", "grid_position")
"""Embedding modules that stock encoders do not have."""
NEAREST = {Modality.IMAGE: "ViTModel", Modality.VIDEO: "VivitModel"}


def difference_to_stock(model: Model) -> str:
    """Why a dense model of one pass is not a stock model; empty where it is one."""
    (task,) = model.config.tasks.values()
    span, others = task.spans[0], task.spans[1:]
    if others:
        return (
            f"the pass joins {len(task.spans)} spans, each embedded in its own way; stock encoders"
            " read one"
        )
    encoder, modality = model.config.encoder, span.modality
    if modality is Modality.SOUND:
        return "Wav2Vec2Model adds positions by a convolution, this encoder by a table of vectors"
    if span.attention is Attention.CAUSAL:
        return "its attention is causal, which stock encoders do not have"
    if encoder.prompts:
        return "prompts stand before its keys and values, which stock encoders do not have"
    stream = model.config.streams.present()[modality]
    if stream.encoder:
        return "the stream has an encoder of its own beside the model's"
    options = [name for name in TransformerConfig.model_fields if name not in EXPRESSED]
    own = _changed(encoder, options) if isinstance(encoder, TransformerConfig) else ["name"]
    if own:
        return f"stock encoders have nothing like its encoder's {', '.join(own)}"
    modules = [name for name in MODULES if name in stream.embedding]
    if own := [*_changed(stream, OWN[type(stream).__name__]), *modules]:
        return f"stock encoders have nothing like its stream's {', '.join(own)}"
    if (modality, encoder.norm_position) not in CLASSES:
        return (
            f"{NEAREST[modality]} normalises before attention and feed-forward, this encoder after"
            " them"
        )
    textual = modality in (Modality.TEXT, Modality.CODE)
    if stream.norm != textual:
        theirs, ours = ("a", "none") if textual else ("no", "one")
        return (
            f"{stock_class(model)} has {theirs} layer norm over its embeddings, this encoder has"
            f" {ours}"
        )
    return ""


def _changed(config: Config, names: Iterable[str]) -> list[str]:
    """Those of the options that differ from their default."""
    return [
        name for name in names if getattr(config, name) != type(config).model_fields[name].default
    ]


def stock_class(model: Model) -> str:
    """The class of a stock model."""
    (task,) = model.config.tasks.values()
    return CLASSES[task.spans[0].modality, model.config.encoder.norm_position]

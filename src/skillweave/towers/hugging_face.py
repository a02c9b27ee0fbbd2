"""Towers as stock models of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers.utils import logging

from skillweave.batch import Batch, Modality
from skillweave.config.streams import ImageStream, VideoStream
from skillweave.data.processors import build_processors
from skillweave.data.processors.text import TextProcessor
from skillweave.data.processors.tokenizer import KEYS
from skillweave.model import Model
from skillweave.towers.stock import stock_class

Parts = dict[str, tuple[str, ...]]
"""Our module in a block → theirs; query, key and value stand in one of ours."""

VIT: Parts = {
    "attention.qkv.experts.shared": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention.output": ("attention.o_proj",),
    "attention_norm": ("layernorm_before",),
    "feed_forward.experts.shared.inner": ("mlp.fc1",),
    "feed_forward.experts.shared.outer": ("mlp.fc2",),
    "feed_forward_norm": ("layernorm_after",),
}
BERT: Parts = {
    "attention.qkv.experts.shared": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "feed_forward.experts.shared.inner": ("intermediate.dense",),
    "feed_forward.experts.shared.outer": ("output.dense",),
    "feed_forward_norm": ("output.LayerNorm",),
}
PRE_BERT: Parts = {**BERT, "attention_norm": ("attention.LayerNorm",), "feed_forward_norm": ("intermediate.LayerNorm",)}
BLOCKS: dict[str, tuple[str, Parts]] = {
    "BertModel": ("encoder.layer", BERT),
    "RobertaPreLayerNormModel": ("encoder.layer", PRE_BERT),
    "ViTModel": ("layers", VIT),
    "VivitModel": ("layers", VIT),
}
"""Class → where its blocks stand, and what each is made of."""


def write_stock(tower: Model, folder: Path) -> str:
    """Write a tower that fits as a model folder of Hugging Face's, with the tokeniser of a text; the name of its class."""
    name = stock_class(tower)
    modality, stream = _stream(tower)
    visual = isinstance(stream, ImageStream | VideoStream)
    config, state = (_visual if visual else _textual)(tower, modality, stream)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**_sizes(tower), **config), add_pooling_layer=False)
    model.load_state_dict(state | _blocks(tower, *BLOCKS[name]))
    with _quiet():
        model.save_pretrained(folder)
    if not visual and tower.assets:
        _write_tokenizer(tower, modality, folder)
    return name


@torch.inference_mode()
def run_stock(tower: Model, folder: Path, batch: Batch) -> Tensor:
    """[N, L, D] what the model in a folder makes of a batch."""
    kind = getattr(transformers, stock_class(tower))
    with _quiet():
        model = kind.from_pretrained(folder, add_pooling_layer=False).eval()
    (x,), (modality, _) = batch.inputs, _stream(tower)
    if modality is Modality.IMAGE:
        return model(pixel_values=x).last_hidden_state
    if modality is Modality.VIDEO:
        return model(pixel_values=x.transpose(1, 2)).last_hidden_state
    own_NL = torch.arange(x.shape[1]) < batch.lengths
    ids = x.masked_fill(~own_NL, _padding(tower, modality))
    return model(input_ids=ids, attention_mask=own_NL.long()).last_hidden_state


@contextmanager
def _quiet() -> Generator[None]:
    """Without transformers' progress bars, which flash by for a tower."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _stream(tower: Model) -> tuple[Modality, Any]:
    ((modality, stream),) = tower.config.streams.present().items()
    return modality, stream


def _sizes(tower: Model) -> dict[str, Any]:
    """The encoder, in the words of Hugging Face's configurations."""
    encoder = tower.config.encoder
    return {
        "hidden_size": tower.config.width,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.feed_forward,
        "hidden_act": encoder.activation,
        "layer_norm_eps": encoder.norm_epsilon,
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.attention_dropout,
    }


def _blocks(tower: Model, where: str, parts: Parts) -> dict[str, Tensor]:
    state, found = tower.state_dict(), {}
    for layer in range(tower.config.encoder.layers):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                pieces = state[f"encoder.blocks.{layer}.{ours}.{kind}"].chunk(len(theirs))
                found |= {f"{where}.{layer}.{name}.{kind}": x for name, x in zip(theirs, pieces, strict=True)}
    return found


def _positions(tower: Model, modality: Modality, length: int) -> Tensor:
    """[L, D] all that is added to the content, whatever it is made of; the segment is that of a single span."""
    table = torch.zeros(length, tower.config.width)
    for module in tower.get_submodule(f"embeddings.{modality.value}.positions").children():
        table = table + module(length, 0)[0]
    return table.detach()


def _visual(tower: Model, modality: Modality, stream: ImageStream | VideoStream) -> tuple[dict[str, Any], dict[str, Tensor]]:
    state = tower.state_dict()
    content = f"embeddings.{modality.value}.content.{'patch' if isinstance(stream, ImageStream) else 'tubelet'}"
    given = {
        "embeddings.cls_token": state[f"{content}.first"].view(1, 1, -1),
        "embeddings.position_embeddings": _positions(tower, modality, stream.max_length).unsqueeze(0),
        "embeddings.patch_embeddings.projection.weight": state[f"{content}.projection.weight"],
        "embeddings.patch_embeddings.projection.bias": state[f"{content}.projection.bias"],
        "layernorm.weight": state["encoder.last_norm.weight"],
        "layernorm.bias": state["encoder.last_norm.bias"],
    }
    if isinstance(stream, ImageStream):
        return {"image_size": stream.size, "patch_size": stream.patch}, given
    return {"image_size": stream.size, "num_frames": stream.frames, "tubelet_size": list(stream.tubelet)}, given


def _textual(tower: Model, modality: Modality, stream: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    state, own = tower.state_dict(), f"embeddings.{modality.value}"
    words, positions, padding = tower.words(modality), _positions(tower, modality, stream.max_length), _padding(tower, modality)
    given = {
        "embeddings.word_embeddings.weight": words,
        "embeddings.token_type_embeddings.weight": torch.zeros(1, tower.config.width),
        "embeddings.LayerNorm.weight": state[f"{own}.norm.weight"],
        "embeddings.LayerNorm.bias": state[f"{own}.norm.bias"],
    }
    if tower.config.encoder.norm_position == "pre":  # RoBERTa counts positions from behind that of padding
        positions = torch.cat([positions.new_zeros(padding + 1, positions.shape[1]), positions])
        given |= {f"LayerNorm.{kind}": state[f"encoder.last_norm.{kind}"] for kind in ("weight", "bias")}
    given["embeddings.position_embeddings.weight"] = positions
    sizes = {"vocab_size": len(words), "max_position_embeddings": len(positions), "type_vocab_size": 1, "pad_token_id": padding}
    return sizes, given


def _processor(tower: Model, modality: Modality) -> TextProcessor | None:
    processor = build_processors(tower.config, tower.assets)[modality] if tower.assets else None
    return processor if isinstance(processor, TextProcessor) else None


def _padding(tower: Model, modality: Modality) -> int:
    """The id of [PAD]; 0, as batches are padded, for a model without a tokeniser."""
    processor = _processor(tower, modality)
    return (processor.tokenizer.token_to_id(processor.names["pad"]) if processor else None) or 0


def _write_tokenizer(tower: Model, modality: Modality, folder: Path) -> None:
    """The tokeniser as transformers reads it: `[CLS] pieces`, cut as the stream cuts."""
    processor = _processor(tower, modality)
    if processor is None:
        return
    first = processor.names["cls"]
    processor.tokenizer.post_processor = TemplateProcessing(single=f"{first} $A", special_tokens=[(first, processor.cls)])
    special = {key: processor.names[role] for key, role in KEYS.items() if key not in ("bos_token", "eos_token")}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=processor.tokenizer, model_max_length=processor.max_length, **special
    )
    tokenizer.save_pretrained(folder)
